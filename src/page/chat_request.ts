/** Sends a chat with as many of its turns as fit into the model's context. */
import { Failure } from "./api.ts";
import type { Turn } from "./preferences.ts";

/** Drops the first `left` turns, and more until the first turn is the user's. */
function lastOf<T extends Turn>(all: readonly T[], left: number): readonly T[] {
  const rest = all.slice(left), from = rest.findIndex(({ role }) => role === "user");
  return rest.slice(Math.max(0, from));
}

/**
 * Starts an answer, and returns its stream and the turns that were sent. If the chat and the answer do not fit into the
 * context, the limit on the answer's length is dropped first, and then the oldest turns.
 */
export async function begun<T extends Turn, E>(
  all: readonly T[],
  most: number,
  ask: (turns: readonly T[], limit: object) => AsyncGenerator<E>,
): Promise<{ readonly stream: AsyncGenerator<E>; readonly turns: readonly T[] }> {
  let turns = all, limit: object = { max_completion_tokens: most };
  for (;;) {
    const stream = ask(turns, limit);
    try {
      const first = await stream.next();
      const whole = async function* () {
        if (!first.done) yield first.value;
        yield* stream;
      };
      return { stream: whole(), turns };
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== "context_length_exceeded") throw error;
      const fewer = lastOf(turns, 1);
      if (Object.keys(limit).length > 0) limit = {};
      else if (fewer.length < turns.length && fewer.length > 0) turns = fewer;
      else throw error;
    }
  }
}
