/** Reads the structure of a file of torch.save, its tensors and storages, from its pickle. See torch_file.ts. */
import { CheckpointError } from "../errors.ts";
import { sizeOf } from "../engine/tensor.ts";
import { readPickle } from "./pickle.ts";
import { PickleGlobal, PickleObject, type PickleValue } from "./pickle_values.ts";
import { shown } from "./shown.ts";
import type { ZipFile } from "./zip.ts";

/** The maximum structure in bytes. The structure of the largest GPT-2 with its optimizer has 0.2 MB. */
const MAX_STRUCTURE = 2 ** 26;
const MAX_AXES = 16;

/** PyTorch's storage classes and bytes per element, by safetensors' names of the types. */
export const STORAGES = {
  F64: ["DoubleStorage", 8],
  F32: ["FloatStorage", 4],
  F16: ["HalfStorage", 2],
  BF16: ["BFloat16Storage", 2],
  I64: ["LongStorage", 8],
  I32: ["IntStorage", 4],
  I16: ["ShortStorage", 2],
  I8: ["CharStorage", 1],
  U8: ["ByteStorage", 1],
  BOOL: ["BoolStorage", 1],
} as const;
/** PyTorch's types, by safetensors' names. */
export type TorchType = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** A storage in a file. */
export class TorchStorage extends PickleObject {
  /** @internal @param size number of elements */
  constructor(readonly record: string, readonly dtype: TorchType, readonly size: number) {
    super();
  }
}

/** A tensor in a file, whose elements {@linkcode TorchFile.read} reads. */
export class TorchTensor extends PickleObject {
  /** @internal */ constructor(
    readonly storage: TorchStorage,
    readonly shape: readonly number[],
    /** Stride of each axis, in elements. */
    readonly stride: readonly number[],
    /** Position of the first element in the storage, in elements. */
    readonly offset: number,
  ) {
    super();
  }
  /** Type of the elements. */ get dtype(): TorchType {
    return this.storage.dtype;
  }
  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }
  /** Number of elements of the storage from the tensor's first to its last element. */
  get span(): number {
    return this.size === 0 ? 0 : this.shape.reduce((sum, count, axis) => sum + (count - 1) * this.stride[axis], 1);
  }
  /** Whether the elements are stored in row-major order without gaps. */
  get contiguous(): boolean {
    let next = 1;
    for (let axis = this.shape.length - 1; axis >= 0; axis--) {
      if (this.shape[axis] === 1) continue;
      if (this.stride[axis] !== next) return false;
      next *= this.shape[axis];
    }
    return true;
  }
}

/**
 * Reads the structure of a file.
 * @throws {CheckpointError} when the structure is missing, damaged, or uses a Python name that tensors do not need
 */
export async function readStructure(zip: ZipFile): Promise<PickleValue> {
  const found = [...zip.entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (found.length !== 1) {
    throw new CheckpointError(`${zip.path} is not a file of torch.save: it has no record data.pkl`);
  }
  const [name] = found, root = name.slice(0, -"data.pkl".length), order = `${root}byteorder`;
  if (zip.entries.has(order) && new TextDecoder().decode(await zip.read(order, { limit: 16 })) !== "little") {
    throw new CheckpointError(`${zip.path} is big-endian, which is not supported`);
  }
  const bytes = await zip.read(name, { limit: MAX_STRUCTURE }), storages = new Map<string, TorchStorage>();
  const persistentLoad = (id: PickleValue) => {
    const [tag, type, key, , size] = Array.isArray(id) ? id : [];
    const record = `${root}data/${key}`, dtype = type instanceof PickleGlobal && STORAGE_TYPES.get(type.name);
    if (tag !== "storage" || !dtype || !isCount(size)) {
      throw new CheckpointError("the description of a storage is not valid");
    }
    const known = storages.get(record), there = zip.entries.get(record)?.size, expected = size * STORAGES[dtype][1];
    if (there === undefined) throw new CheckpointError(`it refers to ${shown(record)}, which is missing in the file`);
    if (there !== expected) throw new CheckpointError(`${record} has ${there} bytes, expected ${expected}`);
    if (known && known.dtype !== dtype) throw new CheckpointError(`${record} is both ${known.dtype} and ${dtype}`);
    const storage = known ?? new TorchStorage(record, dtype, size);
    storages.set(record, storage);
    return storage;
  };
  return readPickle(bytes, { where: `${name} in ${zip.path}`, globals: GLOBALS, persistentLoad });
}

const STORAGE_TYPES = new Map(
  Object.entries(STORAGES).map(([dtype, [name]]) => [`torch.${name}`, dtype as TorchType]),
);

/** The Python names that tensors need. */
const GLOBALS: readonly PickleGlobal[] = [
  ...[...STORAGE_TYPES.keys()].map((name) => new PickleGlobal(name)),
  new PickleGlobal("torch._utils._rebuild_tensor_v2", ([storage, offset, shape, stride]) => {
    if (!(storage instanceof TorchStorage) || !isCount(offset) || !areCounts(shape) || !areCounts(stride)) {
      throw new CheckpointError("the description of a tensor is not valid");
    }
    const tensor = new TorchTensor(storage, shape, stride, offset);
    if (shape.length === stride.length && isCount(tensor.size) && offset + tensor.span <= storage.size) return tensor;
    const what = `[${shape}] with strides [${stride}] from element ${offset} on`;
    throw new CheckpointError(`a tensor, ${what}, is not within its storage of ${storage.size}`);
  }),
  new PickleGlobal("torch._utils._rebuild_parameter", ([tensor]) => {
    if (tensor instanceof TorchTensor) return tensor;
    throw new CheckpointError("the description of a parameter is not valid");
  }),
  new PickleGlobal("torch.Size", ([sizes]) => {
    if (areCounts(sizes)) return sizes;
    throw new CheckpointError("the description of a shape is not valid");
  }),
];

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const areCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MAX_AXES && value.every(isCount);
