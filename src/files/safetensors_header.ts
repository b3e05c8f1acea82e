/** Parses and checks the header of a safetensors file, and converts tensors to the bytes of a file. */
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../half.ts";
import { CheckpointError } from "../errors.ts";
import { isObject, parseJson } from "./files.ts";
import { sizeOf } from "../engine/tensor.ts";

/** Bits per element. */
const BITS: Readonly<Record<TensorType, number>> = {
  ...{ BOOL: 8, U8: 8, I8: 8, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6 },
  ...{ U16: 16, I16: 16, F16: 16, BF16: 16, U32: 32, I32: 32, F32: 32, U64: 64, I64: 64, F64: 64, C64: 64 },
};
/** All types of the format. */
export type TensorType =
  | ("BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F4" | "F6_E2M3" | "F6_E3M2")
  | ("U16" | "I16" | "F16" | "BF16" | "U32" | "I32" | "F32" | "U64" | "I64" | "F64" | "C64");

export const HALVES = { F16: { widen: f16ToF32, narrow: f32ToF16 }, BF16: { widen: bf16ToF32, narrow: f32ToBf16 } };
export const isHalf = (dtype: TensorType): dtype is keyof typeof HALVES => Object.hasOwn(HALVES, dtype);

/** The maximum header in bytes, as in the Rust library. If it is longer, it is an attack or its length is damaged. */
export const MAX_HEADER = 100_000_000;

/** A tensor in a file. Positions are counted from the end of the header. */
export interface TensorInfo {
  /** Type of the elements. */ readonly dtype: TensorType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** Position of the tensor's first byte. */ readonly begin: number;
  /** Position after the tensor's last byte. */ readonly end: number;
}

export const byteLength = (dtype: TensorType, shape: readonly number[]): number => sizeOf(shape) * BITS[dtype] / 8;

/**
 * Parses a header.
 *
 * @param text JSON of the header
 * @param room bytes of the file that follow the header
 * @throws {CheckpointError} when the header is not valid, or its tensors do not fill `room` without gaps and overlaps
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
    if (tensor.begin > end) throw refuse(`there is a gap between ${end} and ${name} at ${tensor.begin}`);
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
  if (!Object.hasOwn(BITS, dtype)) throw refuse(`${name} has the unknown type ${dtype}`);
  const [begin, end] = offsets, expected = byteLength(dtype as TensorType, shape);
  if (end - begin !== expected) {
    throw refuse(`${name} is ${dtype} [${shape}], ${expected} bytes, but its offsets span ${end - begin}`);
  }
  return { dtype: dtype as TensorType, shape, begin, end };
}

/** A tensor to write. */
export interface TensorSource {
  /** Type of the elements in the file. */ readonly dtype: TensorType;
  /** Sizes of the axes. */ readonly shape: readonly number[];
  /** Called once, when the tensor is written. For F16 and BF16 it may return a Float32Array, which is converted. */
  readonly data: () => ArrayBufferView | Promise<ArrayBufferView>;
}
/** A tensor's elements as bytes of a file. @throws {TypeError} when their size does not match the type and shape */
export async function bytesOf({ dtype, shape, data }: TensorSource, name: string): Promise<Uint8Array> {
  const given = await data(), expected = byteLength(dtype, shape);
  const array = given instanceof Float32Array && isHalf(dtype) ? HALVES[dtype].narrow(given) : given;
  const { buffer, byteOffset, byteLength: bytes } = array;
  if (bytes !== expected) throw new TypeError(`${name} [${shape}] has ${bytes} bytes, expected ${expected}`);
  return new Uint8Array(buffer, byteOffset, bytes);
}
