/**
 * multipart/form-data as it comes in, part by part (RFC 7578): a file of any length goes through, and nothing is put together in
 * memory but names and short texts.
 */
import { ApiError, invalid } from "./errors.ts";

/** One part of a form. */
export interface FormPart {
  readonly name: string;
  /** Where it is a file: what the client calls it. */
  readonly filename?: string;
  /** Read it to its end before the next part. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** The most bytes of a part's headers, and the most parts. */
const MOST_HEADER = 4096, MOST_PARTS = 16;

const encoder = new TextEncoder();

/**
 * The parts of a request's body, in their order.
 *
 * @throws {ApiError} 415 for another media type, 400 for a body that is not such a form, or ends early, 408 where it stands still
 */
export async function* formParts(request: Request): AsyncGenerator<FormPart> {
  const type = request.headers.get("content-type") ?? "";
  const [, quoted, plain] = /^multipart\/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) ?? [];
  if (!(quoted ?? plain)) {
    throw new ApiError(415, "The body has to be a form: Content-Type: multipart/form-data", {
      code: "unsupported_media_type",
    });
  }
  const input = new Input(request.body), delimiter = encoder.encode(`\r\n--${quoted ?? plain}`);
  input.push(encoder.encode("\r\n")); // the first boundary may stand at the very beginning
  for await (const _ of input.until(delimiter));
  for (let count = 0;; count++) {
    const end = await input.take(2);
    if (end === "--") return;
    if (end !== "\r\n") throw broken("something follows a boundary in its line");
    if (count === MOST_PARTS) throw invalid(null, `The form has more than ${MOST_PARTS} parts`);
    const part = { ...headersOf(await input.line()), body: input.until(delimiter) };
    yield part;
    for await (const _ of part.body); // what nobody has read of it
  }
}

/** The text of a short part. */
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

const broken = (what: string) => invalid(null, `The form cannot be read: ${what}`, "invalid_form");

/** Bytes that have come and were not taken. */
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
  /** @throws {ApiError} at the end */
  async #more(): Promise<void> {
    let read;
    try {
      read = await this.#reader?.read();
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "TimeoutError")) throw error;
      throw new ApiError(408, "The body takes too long", { code: "request_timeout" });
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
  /** Headers, up to an empty line. */
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
  /** Bytes before the delimiter, which is taken, too. */
  async *until(delimiter: Uint8Array): AsyncGenerator<Uint8Array> {
    for (let at; (at = find(this.#bytes, delimiter)) !== 0;) {
      // What may be the beginning of the delimiter waits for more.
      const sure = at > 0 ? at : this.#bytes.length - delimiter.length + 1;
      if (sure > 0) yield this.#cut(sure);
      else await this.#more();
    }
    this.#cut(delimiter.length);
  }
}

/** Where the sought bytes begin, or −1. */
function find(bytes: Uint8Array, sought: Uint8Array): number {
  const last = bytes.length - sought.length;
  for (let at = bytes.indexOf(sought[0]); at >= 0 && at <= last; at = bytes.indexOf(sought[0], at + 1)) {
    let i = 1;
    while (i < sought.length && bytes[at + i] === sought[i]) i++;
    if (i === sought.length) return at;
  }
  return -1;
}
