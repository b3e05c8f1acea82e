/** The structure of a torch.save's file: what it says of tensors and storages, read from its pickle. See torch_file.ts. */
import { CheckpointError } from "../errors.ts";
import { sizeOf } from "../engine/tensor.ts";
import { readPickle } from "./pickle.ts";
import { PickleGlobal, PickleObject, type PickleValue } from "./pickle_values.ts";
import { shown } from "./shown.ts";
import type { ZipFile } from "./zip.ts";

/** Of the structure; that of the largest GPT-2 with its optimizer has 0.2 MB. */
const MAX_STRUCTURE = 2 ** 26;
const MAX_AXES = 16;

/** PyTorch's storages, by the types of safetensors, and bytes of an element. */
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
/** PyTorch's types, by safetensors' names for them. */
export type TorchType = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** A storage in a file. */
export class TorchStorage extends PickleObject {
  /** @internal Its size is in elements. */
  constructor(readonly record: string, readonly dtype: TorchType, readonly size: number) {
    super();
  }
}

/** A tensor in a file: what to ask {@linkcode TorchFile.read} for. */
export class TorchTensor extends PickleObject {
  /** @internal */ constructor(
    readonly storage: TorchStorage,
    readonly shape: readonly number[],
    /** Elements from one index of an axis to the next. */
    readonly stride: readonly number[],
    /** Where in its storage it begins, in elements. */
    readonly offset: number,
  ) {
    super();
  }
  /** Of its storage. */ get dtype(): TorchType {
    return this.storage.dtype;
  }
  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }
  /** Elements of its storage from its first to its last. */
  get span(): number {
    return this.size === 0 ? 0 : this.shape.reduce((sum, count, axis) => sum + (count - 1) * this.stride[axis], 1);
  }
  /** Whether the elements lie in order. */
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

/** @throws {CheckpointError} when there is none, it is damaged, or names what no tensor needs */
export async function readStructure(zip: ZipFile): Promise<PickleValue> {
  const found = [...zip.entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (found.length !== 1) throw new CheckpointError(`${zip.path} is no file of torch.save: it has no record data.pkl`);
  const [name] = found, root = name.slice(0, -"data.pkl".length), order = `${root}byteorder`;
  if (zip.entries.has(order) && new TextDecoder().decode(await zip.read(order, { limit: 16 })) !== "little") {
    throw new CheckpointError(`${zip.path} is of a big-endian machine, which is not read here`);
  }
  const bytes = await zip.read(name, { limit: MAX_STRUCTURE }), storages = new Map<string, TorchStorage>();
  const persistentLoad = (id: PickleValue) => {
    const [tag, type, key, , size] = Array.isArray(id) ? id : [];
    const record = `${root}data/${key}`, dtype = type instanceof PickleGlobal && STORAGE_TYPES.get(type.name);
    if (tag !== "storage" || !dtype || !isCount(size)) {
      throw new CheckpointError("a storage is described in another way");
    }
    const known = storages.get(record), there = zip.entries.get(record)?.size, expected = size * STORAGES[dtype][1];
    if (there === undefined) throw new CheckpointError(`it names ${shown(record)}, which the file does not have`);
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

/** What tensors need. */
const GLOBALS: readonly PickleGlobal[] = [
  ...[...STORAGE_TYPES.keys()].map((name) => new PickleGlobal(name)),
  new PickleGlobal("torch._utils._rebuild_tensor_v2", ([storage, offset, shape, stride]) => {
    if (!(storage instanceof TorchStorage) || !isCount(offset) || !areCounts(shape) || !areCounts(stride)) {
      throw new CheckpointError("a tensor is described in another way");
    }
    const tensor = new TorchTensor(storage, shape, stride, offset);
    if (shape.length === stride.length && isCount(tensor.size) && offset + tensor.span <= storage.size) return tensor;
    const what = `[${shape}] with strides [${stride}] from element ${offset} on`;
    throw new CheckpointError(`a tensor, ${what}, is not within its storage of ${storage.size}`);
  }),
  new PickleGlobal("torch._utils._rebuild_parameter", ([tensor]) => {
    if (tensor instanceof TorchTensor) return tensor;
    throw new CheckpointError("a parameter is described in another way");
  }),
  new PickleGlobal("torch.Size", ([sizes]) => {
    if (areCounts(sizes)) return sizes;
    throw new CheckpointError("a shape is described in another way");
  }),
];

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const areCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MAX_AXES && value.every(isCount);
