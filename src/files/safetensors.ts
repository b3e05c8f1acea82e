/**
 * safetensors: named tensors in one file (https://github.com/huggingface/safetensors, "Format").
 *
 *     u64 header length · header (JSON) · tensors, one behind the other, little-endian, row-major
 *
 * The header maps each name to `{dtype, shape, data_offsets}`, offsets counted from the header's end, and `__metadata__` to
 * strings. Tensors go to the file and come from it one at a time: a model is never in memory twice. The checks are those of
 * the Rust original, so a file that passes here passes there: no gap, no overlap, nothing after the last tensor.
 *
 * Every type of the format is listed; those that the engine has no use for are refused when they are read. F16 and BF16 are
 * widened to f32 by reading and narrowed from it by writing. Left out: big-endian machines.
 */
import { CheckpointError } from "../errors.ts";
import { sizeOf } from "../engine/tensor.ts";
import { InputFile, type OpenFile, owned, writeFile } from "./files.ts";
import { FLOAT_READERS } from "./floats.ts";
import {
  byteLength,
  bytesOf,
  isHalf,
  MAX_HEADER,
  parseHeader,
  type TensorInfo,
  type TensorSource,
  type TensorType,
} from "./safetensors_header.ts";

export type { TensorInfo, TensorSource, TensorType };

/** What can be read; the elements of F16 and BF16 come as f32. */
const ARRAYS = { F32: Float32Array, F64: Float64Array, I32: Int32Array, F16: Float32Array, BF16: Float32Array };
/** What reading a tensor gives. */
export type TensorArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** A file of named tensors, open for reading, whatever its format. */
export interface WeightsFile extends Disposable {
  /** Of the file or folder. */ readonly path: string;
  /** In the order of the file. */
  readonly tensors: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[] }>;
  /**
   * The tensor's elements, row by row, alone in a buffer of their own. F16, BF16 and Q8_0 are widened to f32.
   *
   * @throws {CheckpointError} when there is no such tensor, its type cannot be read, or the file ends within it
   */
  readTensor(name: string): Promise<TensorArray>;
  /**
   * The elements from `begin` on of a tensor of floating-point numbers, as many as `out` is long, as f32: for tensors that
   * are not to be in memory twice.
   *
   * @throws {CheckpointError} as {@linkcode readTensor}, and when the tensor has no such elements or they are no floats
   */
  readFloats(name: string, begin: number, out: Float32Array<ArrayBuffer>): Promise<void>;
  /** Closes it. */ close(): void;
}

/** A tensor and its name. */
export type NamedSource = readonly [name: string, tensor: TensorSource];

/**
 * Writes tensors in their order and waits until they are on the disk.
 *
 * @param options.metadata strings for the header
 * @param options.open where the bytes go: a file at `path` unless given
 * @throws what opening and writing throw
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<NamedSource>,
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

async function* parts(header: string, entries: readonly NamedSource[]): AsyncGenerator<Uint8Array> {
  const text = new TextEncoder().encode(header);
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20); // spaces: the first tensor begins aligned
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  yield head;
  for (const [name, tensor] of entries) yield await bytesOf(tensor, name);
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
export class SafetensorsFile implements WeightsFile {
  readonly #file: InputFile;
  readonly #start: number;

  private constructor(
    readonly path: string,
    /** In the order of the header. */
    readonly tensors: ReadonlyMap<string, TensorInfo>,
    readonly metadata: Readonly<Record<string, string>>,
    file: InputFile,
    start: number,
  ) {
    this.#file = file;
    this.#start = start;
  }

  /**
   * Opens a file and reads its header.
   * @throws {CheckpointError} when the file is missing, truncated, or not as the format demands
   */
  static async open(path: string): Promise<SafetensorsFile> {
    return await owned(await InputFile.open(path), async (file) => {
      const { size } = file, head = new Uint8Array(8);
      if (await file.fill(0, head) < 8) throw new CheckpointError(`${path} is truncated: ${size} bytes`);
      const length = Number(new DataView(head.buffer).getBigUint64(0, true)), start = 8 + length;
      if (length > MAX_HEADER) throw new CheckpointError(`${path} is no safetensors file: a header of ${length} bytes`);
      if (start > size) throw new CheckpointError(`${path} is truncated: ${size} bytes, its header ends at ${start}`);
      const text = new Uint8Array(length);
      await file.fill(8, text);
      const { tensors, metadata } = parseHeader(path, text, size - start);
      return new SafetensorsFile(path, tensors, metadata, file, start);
    });
  }

  async readTensor(name: string): Promise<TensorArray> {
    const { dtype, shape } = this.#readable(name), array = new ARRAYS[dtype](sizeOf(shape));
    if (isHalf(dtype)) await this.readFloats(name, 0, array as Float32Array<ArrayBuffer>);
    else await this.#read(name, 0, new Uint8Array(array.buffer));
    return array;
  }

  async readFloats(name: string, begin: number, out: Float32Array<ArrayBuffer>): Promise<void> {
    const { dtype, shape } = this.#readable(name), end = begin + out.length;
    if (dtype === "I32") throw new CheckpointError(`${this.path}: ${name} is I32, expected floating-point numbers`);
    if (!(begin >= 0 && end <= sizeOf(shape))) {
      throw new CheckpointError(`${this.path}: ${name} has no elements ${begin} to ${end}, it is [${shape}]`);
    }
    await FLOAT_READERS[dtype]((at, bytes) => this.#read(name, at, bytes), begin, out);
  }

  #readable(name: string): TensorInfo & { dtype: keyof typeof ARRAYS } {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new CheckpointError(`${this.path} has no tensor ${name}`);
    const { dtype } = tensor;
    if (isReadable(dtype)) return { ...tensor, dtype };
    throw new CheckpointError(`${this.path}: ${name} is ${dtype}, and only ${Object.keys(ARRAYS)} can be read`);
  }

  /** Fills `bytes` with those of the tensor from `begin` on. */
  async #read(name: string, begin: number, bytes: Uint8Array): Promise<void> {
    const at = this.#start + this.tensors.get(name)!.begin + begin;
    if (await this.#file.fill(at, bytes) < bytes.length) throw new CheckpointError(`${this.path} ends within ${name}`);
  }

  /** Closes the file. */ close(): void {
    this.#file[Symbol.dispose]();
  }
  /** As close(). */ [Symbol.dispose](): void {
    this.close();
  }
}

const isReadable = (dtype: TensorType): dtype is keyof typeof ARRAYS => Object.hasOwn(ARRAYS, dtype);
