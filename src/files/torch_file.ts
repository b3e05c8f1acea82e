/**
 * Reads files of torch.save. Such a file is a zip archive (zip.ts): one record is a pickle (pickle.ts) of the structure,
 * and each storage is a record (https://docs.pytorch.org/docs/stable/notes/serialization.html).
 *
 *     archive/data.pkl · archive/byteorder · archive/data/0 · archive/data/1 · … · archive/version
 *
 * The structure is read when the file is opened; tensors are read on request, in ranges. A tensor is a view of a
 * storage. If it is contiguous, its elements are read directly. Otherwise (transposed, expanded) they are gathered.
 * Tensors that share a storage, such as tied weights, refer to the same storage in the structure.
 *
 * Not supported: the format before PyTorch 1.6, which does not use a zip archive; sparse and quantised tensors;
 * big-endian machines.
 */
import { CheckpointError } from "../errors.ts";
import { bf16ToF32, f16ToF32 } from "../half.ts";
import { InputFile, owned } from "./files.ts";
import type { PickleValue } from "./pickle_values.ts";
import type { TensorArray, WeightsFile } from "./safetensors.ts";
import { shown } from "./shown.ts";
import { readStructure, STORAGES, TorchTensor, type TorchType } from "./torch_structure.ts";
import { ZipFile } from "./zip.ts";

/** The maximum number of elements of an expanded view, which can have more elements than its storage. */
const MAX_EXPANDED = 2 ** 24;
/** The first bytes of a file in the format that PyTorch used before version 1.6. */
const LEGACY = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/**
 * An open file of torch.save.
 *
 * @example
 * ```ts ignore
 * using file = await TorchFile.open("pytorch_model.bin");
 * for (const [name, { shape }] of file.tensors) console.log(name, shape, await file.readTensor(name));
 * ```
 */
export class TorchFile implements WeightsFile {
  readonly #zip: ZipFile;
  /** The last tensor that was gathered. It is stored because the caller may read a tensor in parts. */
  #gathered: { readonly tensor: TorchTensor; readonly array: TensorArray } | undefined;

  private constructor(
    readonly path: string,
    /** The saved value: Maps, arrays, numbers, and {@linkcode TorchTensor}s. */
    readonly value: PickleValue,
    /** All tensors in `value`. A name joins the keys on the way to the tensor: `optimizer.state.0.exp_avg`. */
    readonly tensors: ReadonlyMap<string, TorchTensor>,
    zip: ZipFile,
  ) {
    this.#zip = zip;
  }

  /**
   * Opens a file and reads its structure.
   * @throws {CheckpointError} when the file is missing, damaged, or uses a Python name that tensors do not need
   */
  static async open(path: string): Promise<TorchFile> {
    if (await isLegacy(path)) {
      const convert = `torch.save(torch.load("${path}"), "${path}.new")`;
      throw new CheckpointError(`${path} has the format before PyTorch 1.6; convert it in Python: ${convert}`);
    }
    return await owned(await ZipFile.open(path), async (zip) => {
      const value = await readStructure(zip), tensors = new Map<string, TorchTensor>();
      for (const [name, tensor] of named(value, "")) tensors.set(name, tensor);
      return new TorchFile(path, value, tensors, zip);
    });
  }

  async readTensor(name: string): Promise<TensorArray> {
    return await this.read(this.#tensor(name), name);
  }

  async readFloats(which: string | TorchTensor, begin: number, out: Float32Array<ArrayBuffer>): Promise<void> {
    const [tensor, name] = typeof which === "string" ? [this.#tensor(which), which] : [which, "a tensor"];
    const { dtype, shape, size } = tensor, end = begin + out.length;
    if (!dtype.includes("F")) throw this.#error(`${shown(name)} is ${dtype}, expected floating-point numbers`);
    if (!(begin >= 0 && end <= size)) {
      throw this.#error(`${shown(name)} has no elements ${begin} to ${end}, it is [${shape}]`);
    }
    if (!tensor.contiguous) {
      if (this.#gathered?.tensor !== tensor) this.#gathered = { tensor, array: await this.read(tensor, name) };
      return out.set(this.#gathered.array.subarray(begin, end));
    }
    if (dtype === "F32") {
      return await this.#read(tensor, begin, new Uint8Array(out.buffer, out.byteOffset, out.byteLength));
    }
    const bytes = new Uint8Array(STORAGES[dtype][1] * out.length);
    await this.#read(tensor, begin, bytes);
    out.set(DECODE[dtype](bytes)!);
  }

  /**
   * Reads the elements of a tensor in {@linkcode TorchFile.value} in row-major order into a new buffer. F16 and BF16
   * are converted to f32, integers and booleans to i32.
   *
   * @param name name of the tensor, for messages
   * @throws {CheckpointError} when the file is damaged, or an integer does not fit into i32
   */
  async read(tensor: TorchTensor, name = "a tensor"): Promise<TensorArray> {
    const { dtype, shape, size, span, storage } = tensor;
    if (size > Math.max(storage.size, MAX_EXPANDED)) {
      throw this.#error(`${shown(name)} is [${shape}], expanded from ${storage.size} elements: too many to read`);
    }
    const bytes = new Uint8Array(STORAGES[dtype][1] * span);
    await this.#read(tensor, 0, bytes);
    const lying = DECODE[dtype](bytes);
    if (!lying) throw this.#error(`${shown(name)} is I64, and one of its elements does not fit into i32`);
    if (tensor.contiguous) return lying;
    const array = new (lying.constructor as new (size: number) => TensorArray)(size);
    gather(lying, tensor, array);
    return array;
  }

  /** Fills `bytes` from the storage, starting at the tensor's element `begin`. */
  async #read(tensor: TorchTensor, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const { storage: { record, dtype, size }, offset, span } = tensor, width = STORAGES[dtype][1];
    // The checksum covers the whole storage, and this tensor is only a part of it.
    if (span < size) await this.#zip.verify(record);
    await this.#zip.readInto(record, width * (offset + begin), bytes);
  }

  #tensor(name: string): TorchTensor {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    throw new CheckpointError(`${this.path} has no tensor ${name}`);
  }
  #error(why: string): CheckpointError {
    return new CheckpointError(`${this.path}: ${why}`);
  }

  /** Closes the file. */ close(): void {
    this.#zip[Symbol.dispose]();
  }
  /** Closes the file. */ [Symbol.dispose](): void {
    this.close();
  }
}

async function isLegacy(path: string): Promise<boolean> {
  using file = await InputFile.open(path);
  const head = new Uint8Array(LEGACY.length);
  return await file.fill(0, head) === head.length && LEGACY.every((byte, i) => head[i] === byte);
}

function* named(value: PickleValue, name: string): Generator<[string, TorchTensor]> {
  if (value instanceof TorchTensor) yield [name, value];
  else if (value instanceof Map || Array.isArray(value)) {
    for (const [key, item] of value.entries()) yield* named(item, name === "" ? `${key}` : `${name}.${key}`);
  }
}

/** Decodes little-endian bytes; undefined if an integer does not fit into i32. */
const DECODE: Readonly<Record<TorchType, (bytes: Uint8Array<ArrayBuffer>) => TensorArray | undefined>> = {
  F32: ({ buffer }) => new Float32Array(buffer),
  F64: ({ buffer }) => new Float64Array(buffer),
  F16: ({ buffer }) => f16ToF32(new Uint16Array(buffer)),
  BF16: ({ buffer }) => bf16ToF32(new Uint16Array(buffer)),
  I64({ buffer }) {
    const wide = new BigInt64Array(buffer), narrow = Int32Array.from(wide, Number);
    return wide.every((value, i) => value === BigInt(narrow[i])) ? narrow : undefined;
  },
  I32: ({ buffer }) => new Int32Array(buffer),
  I16: ({ buffer }) => Int32Array.from(new Int16Array(buffer)),
  I8: ({ buffer }) => Int32Array.from(new Int8Array(buffer)),
  U8: (bytes) => Int32Array.from(bytes),
  BOOL: (bytes) => Int32Array.from(bytes),
};

/** Copies a tensor's elements in row-major order. */
function gather(from: TensorArray, { shape, stride }: TorchTensor, to: TensorArray): void {
  const index = shape.map(() => 0);
  let at = 0;
  for (let i = 0; i < to.length; i++) {
    to[i] = from[at];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += stride[axis];
      if (++index[axis] < shape[axis]) break;
      at -= stride[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}
