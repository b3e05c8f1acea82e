/** The header of a safetensors file, what it says of each tensor and whether that can be so; and a tensor's bytes as files have them. */
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../half.ts";
import { CheckpointError } from "../errors.ts";
import { isObject, parseJson } from "./files.ts";
import { sizeOf } from "../engine/tensor.ts";

/** Bits of an element. */
const BITS: Readonly<Record<TensorType, number>> = {
  ...{ BOOL: 8, U8: 8, I8: 8, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6 },
  ...{ U16: 16, I16: 16, F16: 16, BF16: 16, U32: 32, I32: 32, F32: 32, U64: 64, I64: 64, F64: 64, C64: 64 },
};
/** The types of the format, by its names for them. */
export type TensorType =
  | ("BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F4" | "F6_E2M3" | "F6_E3M2")
  | ("U16" | "I16" | "F16" | "BF16" | "U32" | "I32" | "F32" | "U64" | "I64" | "F64" | "C64");

export const HALVES = { F16: { widen: f16ToF32, narrow: f32ToF16 }, BF16: { widen: bf16ToF32, narrow: f32ToBf16 } };
export const isHalf = (dtype: TensorType): dtype is keyof typeof HALVES => Object.hasOwn(HALVES, dtype);

/** As the original: a longer header is an attack, or a damaged length. */
export const MAX_HEADER = 100_000_000;

/** A tensor's place in a file: bytes from `begin` to `end`, counted from the end of the header. */
export interface TensorInfo {
  /** Of the elements. */ readonly dtype: TensorType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** The first byte. */ readonly begin: number;
  /** The byte after the last. */ readonly end: number;
}

export const byteLength = (dtype: TensorType, shape: readonly number[]): number => sizeOf(shape) * BITS[dtype] / 8;

/**
 * @param text the header's JSON
 * @param room bytes that follow it
 * @throws {CheckpointError} when it is no such header, or the tensors are not side by side in that room
 */
export function parseHeader(
  path: string,
  text: Uint8Array,
  room: number,
): { tensors: Map<string, TensorInfo>; metadata: Record<string, string> } {
  const refuse = (why: string) => new CheckpointError(`${path} is damaged: ${why}`);
  const header = parseJson(text);
  if (header === undefined) throw refuse("its header is not JSON");
  if (!isObject(header)) throw refuse("its header is not a JSON object");
  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
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
  const { dtype, shape, data_offsets: offsets } = isObject(entry) ? entry : {};
  const counts = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
  if (typeof dtype !== "string" || !counts(shape) || !counts(offsets) || offsets.length !== 2) {
    throw refuse(`${name} lacks a dtype, a shape or offsets`);
  }
  if (!Object.hasOwn(BITS, dtype)) throw refuse(`${name} is ${dtype}, which is no type of the format`);
  const [begin, end] = offsets, expected = byteLength(dtype as TensorType, shape);
  if (end - begin !== expected) {
    throw refuse(`${name} is ${dtype} [${shape}], ${expected} bytes, but ${end - begin} are its own`);
  }
  return { dtype: dtype as TensorType, shape, begin, end };
}

/** A tensor to be written. */
export interface TensorSource {
  /** Of the elements in the file. */ readonly dtype: TensorType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** Called once, when it is this tensor's turn. For F16 and BF16 it may give a Float32Array, which is narrowed. */
  readonly data: () => ArrayBufferView | Promise<ArrayBufferView>;
}
/** A tensor's elements as files have them. @throws {TypeError} when there are more or fewer than its type and shape announce */
export async function bytesOf({ dtype, shape, data }: TensorSource, name: string): Promise<Uint8Array> {
  const given = await data(), expected = byteLength(dtype, shape);
  const array = given instanceof Float32Array && isHalf(dtype) ? HALVES[dtype].narrow(given) : given;
  const { buffer, byteOffset, byteLength: bytes } = array;
  if (bytes !== expected) throw new TypeError(`${name} [${shape}] has ${bytes} bytes, expected ${expected}`);
  return new Uint8Array(buffer, byteOffset, bytes);
}
