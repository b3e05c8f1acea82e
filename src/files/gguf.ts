/**
 * Reads and writes GGUF files: metadata and named tensors in one file, for llama.cpp and programs built on it
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 *     "GGUF" · u32 version · u64 tensors · u64 pairs · pairs of metadata · table of tensors · tensors
 *
 * All numbers are little-endian. A string is a u64 length and UTF-8. An entry of the table is a name, the sizes of the
 * axes (innermost first), a type, and an offset from the start of the tensors. The start and every tensor are aligned.
 * Versions 2 and 3 are read; for little-endian files they are equal. Version 3 is written. Not supported: big-endian
 * files, files in several parts, arrays of arrays, and tensors of types other than F32, F16, BF16 and Q8_0.
 */
import { f32ToBf16, f32ToF16 } from "../half.ts";
import { f32ToQ8 } from "../engine/q8_0.ts";
import { sizeOf } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { InputFile, type OpenFile, owned, replaceFile } from "./files.ts";
import { FLOAT_READERS } from "./floats.ts";
import {
  align,
  byteLength,
  DEFAULT_ALIGNMENT,
  GGUF_TYPES,
  type GgufScalar,
  type GgufScalarType,
  type GgufTensor,
  type GgufType,
  type GgufValue,
  MAGIC,
  parseGguf,
  SCALARS,
  VERSION,
} from "./gguf_header.ts";
import { Lock } from "./locks.ts";
import { MAX_HEADER } from "./safetensors_header.ts";
import type { WeightsFile } from "./safetensors.ts";

export type { GgufScalar, GgufScalarType, GgufTensor, GgufType, GgufValue };

/** The number of bytes that are read first. GPT-2's header, with its vocabulary and merges, has 2 MB. */
const FIRST = 2 ** 22;

/**
 * An open GGUF file. Its header is checked when it is opened; tensors are read one at a time, or in parts.
 *
 * @example
 * ```ts ignore
 * using file = await GgufFile.open("model.gguf");
 * console.log(file.metadata.get("general.architecture")?.value);
 * for (const [name, { dtype, shape }] of file.tensors) console.log(name, dtype, shape, await file.readTensor(name));
 * ```
 */
export class GgufFile implements WeightsFile {
  readonly #file: InputFile;

  private constructor(
    readonly path: string,
    file: InputFile,
    /** Metadata by key, in the order of the file. */ readonly metadata: ReadonlyMap<string, GgufValue>,
    /** Tensors by name, in the order of the file. */ readonly tensors: ReadonlyMap<string, GgufTensor>,
  ) {
    this.#file = file;
  }

  /**
   * Opens a file and reads its header.
   * @throws {CheckpointError} when the file is missing, truncated, or violates the format
   */
  static async open(path: string): Promise<GgufFile> {
    return await owned(await InputFile.open(path), async (file) => {
      for (let length = FIRST;; length *= 2) {
        const bytes = new Uint8Array(Math.min(length, file.size));
        const header = parseGguf(path, bytes.subarray(0, await file.fill(0, bytes)), file.size);
        if (header) return new GgufFile(path, file, header.metadata, header.tensors);
        if (length > MAX_HEADER) throw new CheckpointError(`${path} is damaged: its header has over ${length} bytes`);
      }
    });
  }

  async readTensor(name: string): Promise<Float32Array<ArrayBuffer>> {
    const out = new Float32Array(sizeOf(this.#tensor(name).shape));
    await this.readFloats(name, 0, out);
    return out;
  }

  async readFloats(name: string, begin: number, out: Float32Array<ArrayBuffer>): Promise<void> {
    const { dtype, shape } = this.#tensor(name), end = begin + out.length;
    if (!(begin >= 0 && end <= sizeOf(shape))) {
      throw new CheckpointError(`${this.path}: ${name} has no elements ${begin} to ${end}, it is [${shape}]`);
    }
    await FLOAT_READERS[dtype]((at, bytes) => this.readBytes(name, at, bytes), begin, out);
  }

  /** Fills `bytes` with a tensor's bytes from byte `begin` on, as stored in the file. Q8_0 has blocks of 34 bytes. */
  async readBytes(name: string, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const tensor = this.#tensor(name), at = tensor.begin + begin;
    if (at + bytes.length > tensor.end || await this.#file.fill(at, bytes) < bytes.length) {
      throw new CheckpointError(`${this.path} ends within ${name}`);
    }
  }

  #tensor(name: string): GgufTensor {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    throw new CheckpointError(`${this.path} has no tensor ${name}`);
  }

  /** Closes the file. */ close(): void {
    this.#file[Symbol.dispose]();
  }
  /** Closes the file. */ [Symbol.dispose](): void {
    this.close();
  }
}

/** A value of metadata to write. */
export type WritableValue = GgufValue & { readonly type: WritableType };
/** Types of metadata that can be written. */
export type WritableType = "uint32" | "int32" | "float32" | "bool" | "string";

/** A tensor to write. */
export interface GgufSource {
  /** Type of the elements in the file. */ readonly dtype: GgufType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** Called once, when the tensor is written. Floats are converted to `dtype`; bytes are written unchanged. */
  readonly data: () => Float32Array | Promise<Float32Array | Uint8Array>;
}

const NARROW: Record<GgufType, (values: Float32Array) => ArrayBufferView> = {
  F32: (values) => values,
  F16: f32ToF16,
  BF16: f32ToBf16,
  Q8_0: f32ToQ8,
};

/**
 * Writes a GGUF file. It is written under another name, one tensor at a time, and then renamed to `path`.
 *
 * @param options.open function that creates the file
 * @throws {CheckpointError} when the file cannot be written, or another process writes it
 * @throws the error of a tensor's `data` function that fails
 */
export async function writeGguf(
  path: string,
  { metadata, tensors }: {
    metadata: Iterable<readonly [key: string, value: WritableValue]>;
    tensors: Iterable<readonly [name: string, tensor: GgufSource]>;
  },
  { open }: { open?: OpenFile } = {},
): Promise<void> {
  using _ = await Lock.take(path, { beside: true });
  await replaceFile(path, parts([...metadata], [...tensors]), open);
}

async function* parts(
  metadata: readonly (readonly [string, WritableValue])[],
  tensors: readonly (readonly [string, GgufSource])[],
): AsyncGenerator<Uint8Array> {
  const head = [u32(MAGIC), u32(VERSION), u64(tensors.length), u64(metadata.length)];
  for (const [key, { type, value }] of metadata) {
    const id = (name: string) => u32(SCALARS.findIndex(([type]) => type === name));
    head.push(...string(key), ...Array.isArray(value) ? [id("array"), id(type), u64(value.length)] : [id(type)]);
    for (const scalar of [value].flat()) head.push(...WRITE[type](scalar as never));
  }
  let offset = 0;
  for (const [name, { dtype, shape }] of tensors) {
    head.push(
      ...string(name),
      u32(shape.length),
      ...shape.toReversed().map(u64),
      u32(GGUF_TYPES[dtype].id),
      u64(offset),
    );
    offset = align(offset + byteLength(dtype, shape), DEFAULT_ALIGNMENT);
  }
  const length = head.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(align(length, DEFAULT_ALIGNMENT));
  let at = 0;
  for (const part of head) {
    bytes.set(part, at);
    at += part.length;
  }
  yield bytes;
  for (const [name, { dtype, shape, data }] of tensors) {
    const read = await data(), narrowed = read instanceof Float32Array ? NARROW[dtype](read) : read;
    const { buffer, byteOffset, byteLength: length } = narrowed, expected = byteLength(dtype, shape);
    if (length !== expected) throw new TypeError(`${name}: ${length} bytes, expected ${expected}`);
    yield new Uint8Array(buffer, byteOffset, length);
    yield new Uint8Array(align(length, DEFAULT_ALIGNMENT) - length);
  }
}

const u32 = (value: number): Uint8Array<ArrayBuffer> => new Uint8Array(Uint32Array.of(value).buffer);
const u64 = (value: number): Uint8Array<ArrayBuffer> => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
function string(text: string): Uint8Array<ArrayBuffer>[] {
  const bytes = new TextEncoder().encode(text);
  return [u64(bytes.length), bytes];
}
const WRITE: Record<WritableType, (value: never) => Uint8Array<ArrayBuffer>[]> = {
  uint32: (value: number) => [u32(value)],
  int32: (value: number) => [u32(value)], // Uint32Array stores negative numbers in two's complement
  float32: (value: number) => [new Uint8Array(Float32Array.of(value).buffer)],
  bool: (value: boolean) => [Uint8Array.of(value ? 1 : 0)],
  string,
};
