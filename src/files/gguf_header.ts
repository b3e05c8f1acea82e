/** Parses and checks the header of a GGUF file: its metadata and its table of tensors. See gguf.ts. */
import { Q8_0 } from "../engine/q8_0.ts";
import { sizeOf } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { shown } from "./shown.ts";

/**
 * The types of metadata. A type's index is its number in a file. Each type has a name, the minimum size of a value in
 * bytes, and, if all values have this size, a reader.
 */
export const SCALARS: readonly (readonly [
  type: GgufScalarType | "array",
  least: number,
  read?: (view: DataView, at: number) => number | bigint,
])[] = [
  ["uint8", 1, (view, at) => view.getUint8(at)],
  ["int8", 1, (view, at) => view.getInt8(at)],
  ["uint16", 2, (view, at) => view.getUint16(at, true)],
  ["int16", 2, (view, at) => view.getInt16(at, true)],
  ["uint32", 4, (view, at) => view.getUint32(at, true)],
  ["int32", 4, (view, at) => view.getInt32(at, true)],
  ["float32", 4, (view, at) => view.getFloat32(at, true)],
  ["bool", 1, (view, at) => view.getUint8(at)],
  ["string", 8],
  ["array", 12],
  ["uint64", 8, (view, at) => narrowed(view.getBigUint64(at, true))],
  ["int64", 8, (view, at) => narrowed(view.getBigInt64(at, true))],
  ["float64", 8, (view, at) => view.getFloat64(at, true)],
];
const narrowed = (wide: bigint): number | bigint => Number.isSafeInteger(Number(wide)) ? Number(wide) : wide;
/** A type of metadata. */
export type GgufScalarType =
  | ("uint8" | "int8" | "uint16" | "int16" | "uint32" | "int32" | "uint64" | "int64")
  | ("float32" | "float64" | "bool" | "string");
/** A single value of metadata. Integers are bigints only if a number would not be exact. */
export type GgufScalar = number | bigint | boolean | string;
/** A value of metadata: a scalar or an array. */
export interface GgufValue {
  /** Type of the value, or of each element of an array. */ readonly type: GgufScalarType;
  /** A scalar, or an array of scalars. */ readonly value: GgufScalar | readonly GgufScalar[];
}

/** Supported types of tensors: the type's number in a file, elements per block, and bytes per block. */
export const GGUF_TYPES: Readonly<Record<GgufType, { id: number; block: number; bytes: number }>> = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  Q8_0: { id: 8, ...Q8_0 },
  BF16: { id: 30, block: 1, bytes: 2 },
};
/** A supported type of tensors. */
export type GgufType = "F32" | "F16" | "BF16" | "Q8_0";
/** Names of unsupported types, for messages. */
const OTHERS: Readonly<Record<number, string>> = Object.fromEntries(
  ("2 Q4_0 3 Q4_1 6 Q5_0 7 Q5_1 9 Q8_1 10 Q2_K 11 Q3_K 12 Q4_K 13 Q5_K 14 Q6_K 15 Q8_K 16 IQ2_XXS 17 IQ2_XS 18 IQ3_XXS " +
    "19 IQ1_S 20 IQ4_NL 21 IQ3_S 22 IQ2_S 23 IQ4_XS 24 I8 25 I16 26 I32 27 I64 28 F64 29 IQ1_M 34 TQ1_0 35 TQ2_0 39 MXFP4")
    .match(/\d+ \w+/g)!.map((entry) => entry.split(" ")),
);

/** A tensor in a file. */
export interface GgufTensor {
  /** Type of the elements. */ readonly dtype: GgufType;
  /** Sizes of the axes, in PyTorch's order. */ readonly shape: readonly number[];
  /** Position of the tensor's first byte in the file. */ readonly begin: number;
  /** Position after the tensor's last byte. */ readonly end: number;
}
/** The result of {@linkcode parseGguf}. */
export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

export const MAGIC = 0x46554747, VERSION = 3, ALIGNMENT = "general.alignment";
/** Tensors begin at multiples of 32 bytes, unless `general.alignment` sets another number. */
export const DEFAULT_ALIGNMENT = 32;
export const align = (at: number, alignment: number): number => Math.ceil(at / alignment) * alignment;
export const byteLength = (dtype: GgufType, shape: readonly number[]): number =>
  sizeOf(shape) / GGUF_TYPES[dtype].block * GGUF_TYPES[dtype].bytes;

type Entry = Omit<GgufTensor, "begin" | "end"> & { readonly offset: number };

/** The minimum size in bytes of a metadata pair and of an entry in the table of tensors; a tensor's maximum of axes. */
const LEAST_PAIR = 13, LEAST_TENSOR = 24, MOST_DIMENSIONS = 4;

/**
 * Parses a header.
 *
 * @param bytes the first bytes of the file
 * @param size size of the whole file
 * @returns the header; undefined if it is longer than `bytes`
 * @throws {CheckpointError} when the header is not valid, or the tensors do not follow one another in the file
 */
export function parseGguf(path: string, bytes: Uint8Array<ArrayBuffer>, size: number): GgufHeader | undefined {
  try {
    return new Parser(path, bytes, size).header();
  } catch (error) {
    if (error === MORE) return undefined;
    throw error;
  }
}

/** Thrown when more bytes of the file are needed. */
const MORE = Symbol();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Parser {
  #at = 0;
  readonly #view: DataView;

  constructor(readonly path: string, readonly bytes: Uint8Array<ArrayBuffer>, readonly size: number) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  header(): GgufHeader {
    const { path } = this;
    if (this.size < 4 || this.#u32() !== MAGIC) {
      throw new CheckpointError(`${path} is not a GGUF file: its first four bytes are not "GGUF"`);
    }
    const version = this.#u32();
    if (version !== VERSION && version !== 2) { // in a big-endian file, the lower half of the version is 0
      const what = version % 2 ** 16 ? `version ${version}` : "big-endian";
      throw new CheckpointError(
        `${path} is a GGUF file (${what}); supported are versions 2 and 3, little-endian`,
      );
    }
    const tensorCount = this.#count("tensors", LEAST_TENSOR), pairCount = this.#count("pairs", LEAST_PAIR);
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < pairCount; i++) {
      const key = this.#string(`key ${i + 1}`);
      if (metadata.has(key)) throw this.#damaged(`${shown(key)} occurs twice`);
      metadata.set(key, this.#value(key));
    }
    const alignment = metadata.get(ALIGNMENT) ?? { type: "uint32", value: DEFAULT_ALIGNMENT };
    const { type, value: step } = alignment;
    if (type !== "uint32" || typeof step !== "number" || !Number.isInteger(Math.log2(step))) {
      throw this.#damaged(`${ALIGNMENT} is ${step} (${type}), expected a power of two (uint32)`);
    }
    const entries = new Map<string, Entry>();
    for (let i = 0; i < tensorCount; i++) {
      const name = this.#string(`name of tensor ${i + 1}`);
      if (entries.has(name)) throw this.#damaged(`the tensor ${shown(name)} occurs twice`);
      entries.set(name, this.#tensor(name));
    }
    return { metadata, tensors: this.#places(entries, step) };
  }

  /**
   * The tensors with their positions in the file. As in ggml, each tensor must begin where the previous tensor ends,
   * rounded up to the alignment.
   */
  #places(entries: ReadonlyMap<string, Entry>, step: number) {
    const start = align(this.#at, step), tensors = new Map<string, GgufTensor>();
    let offset = 0;
    for (const [name, { offset: said, dtype, shape }] of entries) {
      if (said !== offset) throw this.#damaged(`${shown(name)} has the offset ${said}, expected ${offset}`);
      const begin = start + offset, end = begin + byteLength(dtype, shape);
      if (end > this.size) throw this.#truncated(`${shown(name)} ends at ${end}`);
      tensors.set(name, { dtype, shape, begin, end });
      offset = align(end - start, step);
    }
    return tensors;
  }

  #tensor(name: string): Entry {
    const count = this.#u32();
    if (count > MOST_DIMENSIONS) throw this.#damaged(`${shown(name)} has ${count} dimensions, expected at most 4`);
    const shape: number[] = [];
    for (let i = 0; i < count; i++) shape.unshift(this.#u64()); // the file has the innermost axis first
    const id = this.#u32(), offset = this.#u64();
    const dtype = (Object.keys(GGUF_TYPES) as GgufType[]).find((type) => GGUF_TYPES[type].id === id);
    if (!dtype) {
      const type = OTHERS[id] ?? `of type ${id}`, known = Object.keys(GGUF_TYPES).join(", ");
      throw new CheckpointError(`${this.path}: ${shown(name)} is ${type}; supported are ${known}`);
    }
    const elements = sizeOf(shape), { block } = GGUF_TYPES[dtype];
    if (shape.includes(0) || (shape.at(-1) ?? 1) % block !== 0) {
      throw this.#damaged(`${shown(name)} is ${dtype} [${shape}], expected rows of a multiple of ${block} elements`);
    }
    // An element takes at least one byte.
    if (elements > this.size) throw this.#truncated(`${shown(name)} has ${elements} elements`);
    return { dtype, shape, offset };
  }

  #value(key: string): GgufValue {
    const kind = this.#type(key);
    if (kind[0] !== "array") return { type: kind[0], value: this.#scalar(key, kind) };
    const of = this.#type(key), [type, least] = of;
    if (type === "array") throw this.#damaged(`${shown(key)} is an array of arrays, which is not supported`);
    const value: GgufScalar[] = [];
    for (let left = this.#count(`elements of ${shown(key)}`, least); left > 0; left--) {
      value.push(this.#scalar(key, of));
    }
    return { type, value };
  }

  #type(key: string): (typeof SCALARS)[number] {
    const id = this.#u32();
    if (id < SCALARS.length) return SCALARS[id];
    throw this.#damaged(`${shown(key)} has type ${id}, expected 0 to ${SCALARS.length - 1}`);
  }

  #scalar(key: string, [type, width, read]: (typeof SCALARS)[number]): GgufScalar {
    if (!read) return this.#string(key);
    const value = read(this.#view, this.#take(width));
    if (type !== "bool") return value;
    if (value === 0 || value === 1) return value === 1;
    throw this.#damaged(`${shown(key)} is the boolean ${value}, expected 0 or 1`);
  }

  #string(what: string): string {
    const length = this.#count(`bytes of ${shown(what)}`, 1), at = this.#take(length);
    try {
      return decoder.decode(this.bytes.subarray(at, at + length));
    } catch {
      throw this.#damaged(`${shown(what)} is not UTF-8 text`);
    }
  }

  /**
   * Reads the number of items that follow, and checks that the file has room for that many items of at least `least`
   * bytes. So a wrong number is found before memory is allocated.
   */
  #count(what: string, least: number): number {
    const count = this.#u64(), room = this.size - this.#at;
    if (count * least <= room) return count;
    throw this.#truncated(`${count} ${what} do not fit into the remaining ${room} bytes`);
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }
  /** Reads a u64. A value from 2^53 on is not exact, but such a value is too large for any file and rejected later. */
  #u64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  /** Skips `length` bytes. @returns the position of the first skipped byte */
  #take(length: number): number {
    const at = this.#at, end = at + length;
    if (end > this.size) throw this.#truncated(`its header ends at ${end} or later`);
    if (end > this.bytes.length) throw MORE;
    this.#at = end;
    return at;
  }

  #damaged(why: string): CheckpointError {
    return new CheckpointError(`${this.path} is damaged: ${why}`);
  }
  #truncated(why: string): CheckpointError {
    return new CheckpointError(`${this.path} is damaged or truncated: it has ${this.size} bytes, but ${why}`);
  }
}
