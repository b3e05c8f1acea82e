/**
 * safetensors: named tensors in one file (https://github.com/huggingface/safetensors, "Format").
 *
 *     u64 header length · header (JSON) · tensors, one behind the other, little-endian, row-major
 *
 * The header maps each name to `{dtype, shape, data_offsets}`, offsets counted from the header's end, and `__metadata__` to
 * strings. Tensors go to the file and come from it one at a time: a model is never in memory twice. The checks are those of
 * the Rust original, so a file that passes here passes there: no gap, no overlap, nothing after the last tensor.
 *
 * Left out: F16 and BF16, which the engine has no tensors for; integers other than I32; big-endian machines.
 */
import { CheckpointError } from "../errors.ts";
import { reason } from "../reason.ts";
import { type OpenFile, writeFile } from "./files.ts";

const ARRAYS = { F32: Float32Array, F64: Float64Array, I32: Int32Array };
/** As the original: a longer header is an attack, or a damaged length. */
const MAX_HEADER = 100_000_000;

export type TensorArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
export type TensorType = keyof typeof ARRAYS;

/** A tensor to be written. */
export interface TensorSource {
  readonly dtype: TensorType;
  readonly shape: readonly number[];
  /** Called once, when it is this tensor's turn. */
  readonly data: () => ArrayBufferView | Promise<ArrayBufferView>;
}
type Entry = readonly [name: string, tensor: TensorSource];

/** A tensor's place in a file: bytes from `begin` to `end`, counted from the end of the header. */
export interface TensorInfo {
  readonly dtype: TensorType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * Writes tensors in their order and waits until they are on the disk.
 *
 * @param options.metadata strings for the header
 * @param options.open where the bytes go: a file at `path` unless given
 * @throws what opening and writing throw
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<Entry>,
  { metadata, open }: { metadata?: Readonly<Record<string, string>>; open?: OpenFile } = {},
): Promise<void> {
  const entries = [...tensors];
  const header = new Map<string, unknown>(metadata && [["__metadata__", metadata]]);
  let end = 0;
  for (const [name, { dtype, shape }] of entries) {
    header.set(name, { dtype, shape, data_offsets: [end, end += byteLength(dtype, shape)] });
  }
  await writeFile(path, parts(JSON.stringify(Object.fromEntries(header)), entries), open);
}

async function* parts(header: string, entries: readonly Entry[]): AsyncGenerator<Uint8Array> {
  const text = new TextEncoder().encode(header);
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20); // spaces: the first tensor begins aligned
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  yield head;
  for (const [name, { dtype, shape, data }] of entries) {
    const array = await data(), expected = byteLength(dtype, shape);
    if (array.byteLength !== expected) throw new TypeError(`${name}: ${array.byteLength} bytes, expected ${expected}`);
    yield new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  }
}

/**
 * A safetensors file, open for reading: its header is checked and its tensors are read one by one.
 *
 * @example
 * ```ts ignore
 * using file = await SafetensorsFile.open("model.safetensors");
 * for (const [name, { shape }] of file.tensors) console.log(name, shape, await file.readTensor(name));
 * ```
 */
export class SafetensorsFile {
  readonly #file: Deno.FsFile;
  readonly #start: number;

  private constructor(
    readonly path: string,
    /** In the order of the header. */
    readonly tensors: ReadonlyMap<string, TensorInfo>,
    readonly metadata: Readonly<Record<string, string>>,
    file: Deno.FsFile,
    start: number,
  ) {
    this.#file = file;
    this.#start = start;
  }

  /** @throws {CheckpointError} when the file is missing, truncated, or not as the format demands */
  static async open(path: string): Promise<SafetensorsFile> {
    let file;
    try {
      file = await Deno.open(path);
    } catch (error) {
      throw new CheckpointError(`Cannot read ${path}: ${reason(error)}`);
    }
    try {
      const { size } = await file.stat();
      const head = new Uint8Array(8);
      if (size < 8 || await fill(file, head) < 8) throw new CheckpointError(`${path} is truncated: ${size} bytes`);
      const length = Number(new DataView(head.buffer).getBigUint64(0, true)), start = 8 + length;
      if (length > MAX_HEADER) throw new CheckpointError(`${path} is no safetensors file: a header of ${length} bytes`);
      if (start > size) throw new CheckpointError(`${path} is truncated: ${size} bytes, its header ends at ${start}`);
      const text = new Uint8Array(length);
      await fill(file, text);
      const { tensors, metadata } = parseHeader(path, text, size - start);
      return new SafetensorsFile(path, tensors, metadata, file, start);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** The tensor's elements, alone in a buffer of their own. */
  async readTensor(name: string): Promise<TensorArray> {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new CheckpointError(`${this.path} has no tensor ${name}`);
    const bytes = new Uint8Array(tensor.end - tensor.begin);
    await this.#file.seek(this.#start + tensor.begin, Deno.SeekMode.Start);
    if (await fill(this.#file, bytes) < bytes.length) throw new CheckpointError(`${this.path} ends within ${name}`);
    return new ARRAYS[tensor.dtype](bytes.buffer);
  }

  close(): void {
    this.#file.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Reads until `bytes` is full or the file ends; returns how many were read. */
async function fill(file: Deno.FsFile, bytes: Uint8Array): Promise<number> {
  let at = 0;
  while (at < bytes.length) {
    const count = await file.read(bytes.subarray(at));
    if (count === null) break;
    at += count;
  }
  return at;
}

function parseHeader(path: string, text: Uint8Array, room: number) {
  const refuse = (why: string) => new CheckpointError(`${path} is damaged: ${why}`);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch {
    throw refuse("its header is not JSON");
  }
  if (!isRecord(header)) throw refuse("its header is not a JSON object");
  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isRecord(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    throw refuse("its metadata are not strings");
  }
  const tensors = new Map(Object.entries(entries).map(([name, entry]) => [name, parseEntry(name, entry, refuse)]));
  let end = 0;
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (tensor.begin < end) throw refuse(`${name} begins at ${tensor.begin}, within the tensor before it`);
    if (tensor.begin > end) throw refuse(`nothing stands between ${end} and ${name} at ${tensor.begin}`);
    end = tensor.end;
  }
  if (end > room) throw new CheckpointError(`${path} is truncated: ${room} of ${end} bytes of tensors are there`);
  if (end < room) throw refuse(`${room - end} bytes follow its last tensor`);
  return { tensors, metadata: metadata as Record<string, string> };
}

function parseEntry(name: string, entry: unknown, refuse: (why: string) => CheckpointError): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = isRecord(entry) ? entry : {};
  const counts = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
  if (typeof dtype !== "string" || !counts(shape) || !counts(offsets) || offsets.length !== 2) {
    throw refuse(`${name} lacks a dtype, a shape or offsets`);
  }
  if (!Object.hasOwn(ARRAYS, dtype)) throw refuse(`${name} is ${dtype}, and only ${Object.keys(ARRAYS)} can be read`);
  const [begin, end] = offsets, expected = byteLength(dtype as TensorType, shape);
  if (end - begin !== expected) {
    throw refuse(`${name} is ${dtype} [${shape}], ${expected} bytes, but ${end - begin} are its own`);
  }
  return { dtype: dtype as TensorType, shape, begin, end };
}

const byteLength = (dtype: TensorType, shape: readonly number[]) =>
  shape.reduce((a, b) => a * b, 1) * ARRAYS[dtype].BYTES_PER_ELEMENT;
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
