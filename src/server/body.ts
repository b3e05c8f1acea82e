/** Bodies of requests: so many bytes, in so much time, and what JSON is in them. */
import { ApiError, invalid } from "./errors.ts";

/** The most bytes of a JSON body, how deep it may go, and how many seconds it may take. */
const MOST_BYTES = 2 ** 20, MOST_DEPTH = 64, MOST_SECONDS = 30;

/**
 * The JSON of a request.
 *
 * @throws {ApiError} 415 for another media type, which also keeps out forms of other pages; 413, 408 and 400 for a body that is too
 *   large, too slow, or not JSON
 */
export async function readBody(request: Request): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type.trim())) {
    throw new ApiError(415, "The body has to be JSON, with the header Content-Type: application/json", {
      code: "unsupported_media_type",
    });
  }
  if (!/^(identity)?$/i.test(request.headers.get("content-encoding") ?? "")) {
    throw new ApiError(415, "The body has to come as it is, without Content-Encoding", {
      code: "unsupported_media_type",
    });
  }
  const bytes = await readBytes(request, MOST_BYTES);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalid(null, "The body is not UTF-8", "invalid_json");
  }
  if (depthOf(text) > MOST_DEPTH) throw invalid(null, `The body is deeper than ${MOST_DEPTH} levels`, "invalid_json");
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(null, "The body is not JSON", "invalid_json");
  }
}

/** @throws {ApiError} 413 where there are more bytes, 408 where they take too long */
export async function readBytes({ body, headers }: Request, most: number): Promise<Uint8Array> {
  const large = () =>
    new ApiError(413, `The body is larger than the ${most} bytes that are taken`, { code: "body_too_large" });
  if (Number(headers.get("content-length") ?? 0) > most) throw large();
  if (!body) return new Uint8Array();
  const reader = body.getReader(), parts: Uint8Array[] = [], late = Promise.withResolvers<never>();
  const slow = new ApiError(408, "The body takes too long", { code: "request_timeout" });
  const timer = setTimeout(() => late.reject(slow), 1000 * MOST_SECONDS);
  let length = 0;
  try {
    for (;;) {
      const { value, done } = await Promise.race([reader.read(), late.promise]);
      if (done) break;
      length += value.length;
      if (length > most) throw large();
      parts.push(value);
    }
  } catch (error) {
    throw error instanceof DOMException && error.name === "TimeoutError" ? slow : error;
  } finally {
    clearTimeout(timer);
    reader.releaseLock();
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** How deep lists and objects stand in each other: a parser takes long for a million levels. */
function depthOf(text: string): number {
  let depth = 0, most = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) { // a string: up to its end
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
    } else if (c === 0x5b || c === 0x7b) most = Math.max(most, ++depth);
    else if (c === 0x5d || c === 0x7d) depth--;
  }
  return most;
}
