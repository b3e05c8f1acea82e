/**
 * Reads and writes safetensors files: named tensors in one file (https://github.com/huggingface/safetensors, "Format").
 *
 *     u64 header length · header (JSON) · tensors without gaps, little-endian, row-major
 *
 * The header maps each name to `{dtype, shape, data_offsets}`, with offsets from the header's end, and `__metadata__`
 * to strings. Tensors are written and read one at a time, so that a model is never in memory twice. The checks are the
 * checks of the Rust library, so the Rust library accepts every file that is accepted here: no gap, no overlap, nothing
 * after the last tensor.
 *
 * All types of the format can be listed, but only types that the engine uses can be read. F16 and BF16 are converted to
 * f32 when read, and from f32 when written. Not supported: big-endian machines.
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

/** Types that can be read, and the arrays of their elements. F16 and BF16 are converted to f32. */
const ARRAYS = { F32: Float32Array, F64: Float64Array, I32: Int32Array, F16: Float32Array, BF16: Float32Array };
/** The elements of a tensor. */
export type TensorArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** An open file of named tensors, in any format. */
export interface WeightsFile extends Disposable {
  /** Path of the file, or of the index of several files. */ readonly path: string;
  /** Types and shapes by name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, { readonly dtype: string; readonly shape: readonly number[] }>;
  /**
   * Reads a tensor's elements in row-major order into a new buffer. F16, BF16 and Q8_0 are converted to f32.
   *
   * @throws {CheckpointError} when there is no tensor of this name, its type is not supported, or the file ends within
   * it
   */
  readTensor(name: string): Promise<TensorArray>;
  /**
   * Fills `out` with elements of a floating-point tensor from index `begin` on, as f32. So a large tensor can be copied
   * in parts.
   *
   * @throws {CheckpointError} as {@linkcode readTensor}, and when the range is not within the tensor or its type is an
   * integer
   */
  readFloats(name: string, begin: number, out: Float32Array<ArrayBuffer>): Promise<void>;
  /** Closes the file. */ close(): void;
}

/** A tensor and its name. */
export type NamedSource = readonly [name: string, tensor: TensorSource];

/**
 * Writes a safetensors file and waits until it is on the disk.
 *
 * @param tensors tensors in the order in which they are written
 * @param options.metadata strings for the header
 * @param options.open function that creates the file
 * @throws the errors of the file system
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<NamedSource>,
  { metadata, open }: { metadata?: Readonly<Record<string, string>>; open?: OpenFile } = {},
): Promise<void> {
  await writeFile(path, safetensorsParts(tensors, { metadata }), open);
}

/** The contents of a safetensors file, in pieces. @param options.metadata strings for the header */
export function safetensorsParts(
  tensors: Iterable<NamedSource>,
  { metadata }: { metadata?: Readonly<Record<string, string>> } = {},
): AsyncGenerator<Uint8Array> {
  const entries = [...tensors], header = new Map<string, unknown>(metadata && [["__metadata__", metadata]]);
  let end = 0;
  for (const [name, { dtype, shape }] of entries) {
    header.set(name, { dtype, shape, data_offsets: [end, end += byteLength(dtype, shape)] });
  }
  return parts(JSON.stringify(Object.fromEntries(header)), entries);
}

async function* parts(header: string, entries: readonly NamedSource[]): AsyncGenerator<Uint8Array> {
  const text = new TextEncoder().encode(header);
  // The header is padded with spaces, so that the first tensor is aligned.
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  yield head;
  for (const [name, tensor] of entries) yield await bytesOf(tensor, name);
}

/**
 * An open safetensors file. Its header is checked when it is opened; tensors are read one at a time.
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
    /** Tensors by name, in the order of the header. */
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
   * @throws {CheckpointError} when the file is missing, truncated, or violates the format
   */
  static async open(path: string): Promise<SafetensorsFile> {
    return await owned(await InputFile.open(path), async (file) => {
      const { size } = file, head = new Uint8Array(8);
      if (await file.fill(0, head) < 8) throw new CheckpointError(`${path} is truncated: ${size} bytes`);
      const length = Number(new DataView(head.buffer).getBigUint64(0, true)), start = 8 + length;
      if (length > MAX_HEADER) {
        throw new CheckpointError(`${path} is not a safetensors file: a header of ${length} bytes`);
      }
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
    throw new CheckpointError(`${this.path}: ${name} is ${dtype}; supported are ${Object.keys(ARRAYS).join(", ")}`);
  }

  /** Fills `bytes` with the tensor's bytes from byte `begin` on. */
  async #read(name: string, begin: number, bytes: Uint8Array): Promise<void> {
    const at = this.#start + this.tensors.get(name)!.begin + begin;
    if (await this.#file.fill(at, bytes) < bytes.length) throw new CheckpointError(`${this.path} ends within ${name}`);
  }

  /** Closes the file. */ close(): void {
    this.#file[Symbol.dispose]();
  }
  /** Closes the file. */ [Symbol.dispose](): void {
    this.close();
  }
}

const isReadable = (dtype: TensorType): dtype is keyof typeof ARRAYS => Object.hasOwn(ARRAYS, dtype);
