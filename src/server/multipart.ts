/**
 * Parses multipart/form-data part by part, as it arrives (RFC 7578). Files of any length are streamed; only names and
 * short texts are held in memory.
 */
import { ApiError, invalid } from "./errors.ts";

/** One part of a form. */
export interface FormPart {
  readonly name: string;
  /** For a file: the client's name for it. */
  readonly filename?: string;
  /** The part's bytes. Read them to the end before the next part. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Limits: bytes of a part's headers, number of parts. */
const MOST_HEADER = 4096, MOST_PARTS = 16;

const encoder = new TextEncoder();

/**
 * Yields the parts of a request's body in order.
 *
 * @throws {ApiError} 415 for another media type, 400 for an invalid or incomplete form, 408 if the body stalls
 */
export async function* formParts(request: Request): AsyncGenerator<FormPart> {
  const type = request.headers.get("content-type") ?? "";
  const [, quoted, plain] = /^multipart\/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) ?? [];
  if (!(quoted ?? plain)) {
    throw new ApiError(415, "The body must be a form, with the header Content-Type: multipart/form-data", {
      code: "unsupported_media_type",
    });
  }
  const input = new Input(request.body), delimiter = encoder.encode(`\r\n--${quoted ?? plain}`);
  input.push(encoder.encode("\r\n")); // the first boundary has no line break before it
  for await (const _ of input.until(delimiter));
  for (let count = 0;; count++) {
    const end = await input.take(2);
    if (end === "--") return;
    if (end !== "\r\n") throw broken("unexpected characters after a boundary");
    if (count === MOST_PARTS) throw invalid(null, `The form has more than ${MOST_PARTS} parts`);
    const part = { ...headersOf(await input.line()), body: input.until(delimiter) };
    yield part;
    for await (const _ of part.body); // skips what the caller has not read
  }
}

/** Reads the text of a short part. */
export async function partText({ name, body }: FormPart, most: number): Promise<string> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const bytes of body) {
    length += bytes.length;
    if (length > most) throw invalid(name.slice(0, 80), `${name.slice(0, 80)} is longer than ${most} bytes`);
    parts.push(bytes);
  }
  return new TextDecoder().decode(await new Blob(parts as BlobPart[]).arrayBuffer());
}

function headersOf(headers: string): Pick<FormPart, "name" | "filename"> {
  const disposition = /^content-disposition:\s*form-data\b(.*)$/im.exec(headers)?.[1] ?? "";
  const value = (name: string) => {
    const text = new RegExp(`;\\s*${name}="((?:[^"\\\\]|\\\\.)*)"`, "i").exec(disposition)?.[1];
    return text?.replace(/%22|\\"/g, '"').replace(/%0D/gi, "\r").replace(/%0A/gi, "\n");
  };
  const name = value("name"), filename = value("filename");
  if (name === undefined) throw broken("a part has no name");
  return { name, ...filename !== undefined && { filename } };
}

const broken = (what: string) => invalid(null, `The form is not valid: ${what}`, "invalid_form");

/** A buffer of the bytes that have arrived and are not parsed yet. */
class Input {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #bytes = new Uint8Array();

  constructor(body: ReadableStream<Uint8Array> | null) {
    this.#reader = body?.getReader();
  }
  push(bytes: Uint8Array): void {
    const both = new Uint8Array(this.#bytes.length + bytes.length);
    both.set(this.#bytes);
    both.set(bytes, this.#bytes.length);
    this.#bytes = both;
  }
  /** Reads the next bytes of the body. @throws {ApiError} if the body has ended, or stalls */
  async #more(): Promise<void> {
    let read;
    try {
      read = await this.#reader?.read();
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "TimeoutError")) throw error;
      throw new ApiError(408, "The body took too long to arrive", { code: "request_timeout" });
    }
    if (!read || read.done) throw broken("it ends before its last boundary");
    this.push(read.value);
  }
  #cut(length: number): Uint8Array {
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }
  async take(length: number): Promise<string> {
    while (this.#bytes.length < length) await this.#more();
    return new TextDecoder().decode(this.#cut(length));
  }
  /** Reads the headers of a part, up to an empty line. */
  async line(): Promise<string> {
    const end = encoder.encode("\r\n\r\n");
    let at: number;
    while ((at = find(this.#bytes, end)) < 0) {
      if (this.#bytes.length > MOST_HEADER) throw broken(`a part's headers are longer than ${MOST_HEADER} bytes`);
      await this.#more();
    }
    const text = new TextDecoder().decode(this.#cut(at));
    this.#cut(end.length);
    return text;
  }
  /** Yields the bytes before the next delimiter, and skips the delimiter. */
  async *until(delimiter: Uint8Array): AsyncGenerator<Uint8Array> {
    for (let at; (at = find(this.#bytes, delimiter)) !== 0;) {
      // The last bytes may be the beginning of a delimiter: they stay in the buffer until more arrive.
      const sure = at > 0 ? at : this.#bytes.length - delimiter.length + 1;
      if (sure > 0) yield this.#cut(sure);
      else await this.#more();
    }
    this.#cut(delimiter.length);
  }
}

/** Index of the first occurrence of `sought`, or −1. */
function find(bytes: Uint8Array, sought: Uint8Array): number {
  const last = bytes.length - sought.length;
  for (let at = bytes.indexOf(sought[0]); at >= 0 && at <= last; at = bytes.indexOf(sought[0], at + 1)) {
    let i = 1;
    while (i < sought.length && bytes[at + i] === sought[i]) i++;
    if (i === sought.length) return at;
  }
  return -1;
}
