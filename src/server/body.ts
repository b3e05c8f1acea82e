/** Reads the bodies of requests, with limits on size and time, and parses their JSON. */
import { ApiError, invalid } from "./errors.ts";

/** Limits of a JSON body: bytes, levels of nesting, seconds. */
const MOST_BYTES = 2 ** 20, MOST_DEPTH = 64, MOST_SECONDS = 30;

/**
 * Reads and parses a request's JSON body.
 *
 * @throws {ApiError} 415 for another media type, which also rejects HTML forms of other sites; 413, 408 or 400 for a
 *   body that is too large, too slow, or not JSON
 */
export async function readBody(request: Request): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type.trim())) {
    throw new ApiError(415, "The body must be JSON, with the header Content-Type: application/json", {
      code: "unsupported_media_type",
    });
  }
  if (!/^(identity)?$/i.test(request.headers.get("content-encoding") ?? "")) {
    throw new ApiError(415, "The body must not be encoded; leave out Content-Encoding", {
      code: "unsupported_media_type",
    });
  }
  const bytes = await readBytes(request, MOST_BYTES);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalid(null, "The body is not valid UTF-8", "invalid_json");
  }
  if (depthOf(text) > MOST_DEPTH) {
    throw invalid(null, `The body is nested more than ${MOST_DEPTH} levels deep`, "invalid_json");
  }
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(null, "The body is not valid JSON", "invalid_json");
  }
}

/**
 * Reads a request's body.
 *
 * @throws {ApiError} 413 if the body has more than `most` bytes, 408 if it takes too long to arrive
 */
export async function readBytes({ body, headers }: Request, most: number): Promise<Uint8Array> {
  const large = () =>
    new ApiError(413, `The body is larger than the limit of ${most} bytes`, { code: "body_too_large" });
  if (Number(headers.get("content-length") ?? 0) > most) throw large();
  if (!body) return new Uint8Array();
  const reader = body.getReader(), parts: Uint8Array[] = [], late = Promise.withResolvers<never>();
  const slow = new ApiError(408, "The body took too long to arrive", { code: "request_timeout" });
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

/** The depth to which lists and objects are nested. Parsing a million levels would take long. */
function depthOf(text: string): number {
  let depth = 0, most = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) { // skips a string
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
    } else if (c === 0x5b || c === 0x7b) most = Math.max(most, ++depth);
    else if (c === 0x5d || c === 0x7d) depth--;
  }
  return most;
}
