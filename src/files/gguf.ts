/**
 * GGUF: metadata and named tensors in one file, for llama.cpp and what is built on it
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 *     "GGUF" · u32 version · u64 tensors · u64 pairs · pairs of metadata · table of tensors · tensors
 *
 * All is little-endian. A string is a u64 length and UTF-8; an entry of the table is a name, the sizes with the innermost first, a type
 * and an offset from where the tensors begin. That place and the tensors are aligned. Versions 2 and 3 are read, which are the same,
 * and 3 is written. Left out: big-endian files, files in several parts, arrays of arrays, and types beside F32, F16, BF16 and Q8_0.
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

/** How much of a file is read at first: GPT-2's header, with its vocabulary and merges, is 2 MB. */
const FIRST = 2 ** 22;

/**
 * A GGUF file, open for reading: its header is checked and its tensors are read one by one, or in parts.
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
    /** In the order of the file. */ readonly metadata: ReadonlyMap<string, GgufValue>,
    /** In the order of the file. */ readonly tensors: ReadonlyMap<string, GgufTensor>,
  ) {
    this.#file = file;
  }

  /**
   * Opens a file and reads its header.
   * @throws {CheckpointError} when the file is missing, truncated, or not as the format demands
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

  /** Fills `bytes` with those of a tensor from `begin` on, as they stand in the file: of Q8_0, blocks of 34. */
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
  /** As close(). */ [Symbol.dispose](): void {
    this.close();
  }
}

/** Metadata of the types that are written. */
export type WritableValue = GgufValue & { readonly type: WritableType };
/** Their types. */
export type WritableType = "uint32" | "int32" | "float32" | "bool" | "string";

/** A tensor to be written. */
export interface GgufSource {
  /** Of the elements in the file. */ readonly dtype: GgufType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** Called once, when it is this tensor's turn; floats that it gives are narrowed or quantised, bytes are written as they are. */
  readonly data: () => Float32Array | Promise<Float32Array | Uint8Array>;
}

const NARROW: Record<GgufType, (values: Float32Array) => ArrayBufferView> = {
  F32: (values) => values,
  F16: f32ToF16,
  BF16: f32ToBf16,
  Q8_0: f32ToQ8,
};

/**
 * Writes a file beside `path`, one tensor at a time, and renames it.
 *
 * @param options.open how the file is created
 * @throws {CheckpointError} when the file cannot be written, or another process writes it; and what `data` throws
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
  int32: (value: number) => [u32(value)], // the same bits
  float32: (value: number) => [new Uint8Array(Float32Array.of(value).buffer)],
  bool: (value: boolean) => [Uint8Array.of(value ? 1 : 0)],
  string,
};
