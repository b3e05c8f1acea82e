/**
 * Event streams, as OpenAI's clients read them: `data:` lines and comments alone, for OpenAI's Python client stumbles over other fields
 * (`retry:`, `id:`), but for `event:` where every event has a type.
 */
import type { ApiError } from "./errors.ts";

/** Milliseconds of silence after which a comment shows that the server is there. */
const PING = 15_000;

/** An event. */
export const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`;
/** An event of a stream in which each says of which type it is. */
export const typedEvent = (data: { readonly type: string }): string => `event: ${data.type}\n${event(data)}`;
/** The last event of most streams. */
export const DONE = "data: [DONE]\n\n";

/**
 * An answer of events.
 *
 * @param events as texts; a client that goes ends the iteration
 * @param failed what is to be said of an error in between, when the status has been sent
 * @param ping milliseconds of silence after which a comment is sent
 */
export function eventStream(
  events: AsyncIterable<string>,
  failed: (error: unknown) => ApiError,
  ping = PING,
): Response {
  const iterator = events[Symbol.asyncIterator](), encoder = new TextEncoder();
  let next: Promise<IteratorResult<string>> | undefined;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      next ??= iterator.next();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), ping));
      try {
        const result = await Promise.race([next, silence]);
        if (!result) return controller.enqueue(encoder.encode(": ping\n\n"));
        next = undefined;
        if (result.done) controller.close();
        else controller.enqueue(encoder.encode(result.value));
      } catch (error) {
        controller.enqueue(encoder.encode(event(failed(error).body)));
        controller.close();
      } finally {
        clearTimeout(timer);
      }
    },
    cancel() {
      // Not waited for: it ends when what goes on in it does, which the request's signal has aborted.
      iterator.return?.().catch(() => {});
    },
  }, { highWaterMark: 0 });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" },
  });
}
