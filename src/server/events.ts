/**
 * Event streams in the form that OpenAI's clients read. They have only `data:` lines, comments, and, if every event has
 * a type, `event:` lines, because OpenAI's Python client fails on other fields such as `retry:` and `id:`.
 */
import type { ApiError } from "./errors.ts";

/** Milliseconds of silence after which a comment is sent, so that the connection stays open. */
const PING = 15_000;

/** Formats an event. */
export const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`;
/** Formats an event of a stream whose events have types. */
export const typedEvent = (data: { readonly type: string }): string => `event: ${data.type}\n${event(data)}`;
/** The last event of most streams. */
export const DONE = "data: [DONE]\n\n";

/**
 * Returns an answer that streams events.
 *
 * @param events the formatted events; the iteration is ended if the client disconnects
 * @param failed turns an error into one for the client; it is sent as an event, because the status has been sent
 *   already
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
      // Not awaited: the generator can end only after its current step, and the request's signal aborts that step.
      iterator.return?.().catch(() => {});
    },
  }, { highWaterMark: 0 });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" },
  });
}
