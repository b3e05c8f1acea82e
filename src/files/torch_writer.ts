/** Writes files that torch.load can open, also with weights_only. See torch_file.ts for the format. */
import { sizeOf } from "../engine/tensor.ts";
import { type OpenFile, replaceFile } from "./files.ts";
import { PickleCall, type PickleInput, PickleName, PicklePersistent, writePickle } from "./pickle_writer.ts";
import { bytesOf, type TensorSource } from "./safetensors_header.ts";
import { STORAGES, type TorchType } from "./torch_structure.ts";
import { zipParts, type ZipRecord } from "./zip_writer.ts";

/** A value that can be saved: any value of pickle_writer.ts, which may contain tensors at any depth. */
export type TorchInput =
  | PickleInput
  | TensorSource
  | readonly TorchInput[]
  | ReadonlyMap<string | number | bigint | boolean | null, TorchInput>
  | { readonly [key: string]: TorchInput };

/**
 * Writes a file like `torch.save(value, path)`. Elements are read one tensor at a time, in order. A tensor that occurs
 * twice in `value`, such as tied weights, is written once and shared. The file is written under another name and then
 * renamed, so after a failure the previous file is still there.
 *
 * @param options.open function that creates the file
 * @throws {CheckpointError} when the file cannot be written
 * @throws {TypeError} when a tensor's elements do not match its type and shape, or a value cannot be saved
 * @example
 * ```ts ignore
 * const weight = { dtype: "F32", shape: [2, 2], data: () => Float32Array.of(1, 2, 3, 4) } as const;
 * await writeTorchFile("model.pt", { model: { weight }, iter_num: 250 });
 * ```
 */
export async function writeTorchFile(
  path: string,
  value: TorchInput,
  { open }: { open?: OpenFile } = {},
): Promise<void> {
  const storages = new Map<TensorSource, string>();
  const structure = writePickle(prepare(value, storages)),
    text = (text: string) => () => new TextEncoder().encode(text);
  const records: ZipRecord[] = [
    { name: "archive/data.pkl", data: () => structure },
    { name: "archive/byteorder", data: text("little") },
    ...[...storages].map(([source, key]) => ({ name: `archive/data/${key}`, data: () => bytesOf(source, "a tensor") })),
    { name: "archive/version", data: text("3\n") },
  ];
  await replaceFile(path, zipParts(records), open);
}

const UTILS = "torch._utils";

/** The value, with each tensor replaced by the Python call that creates it. */
function prepare(value: TorchInput, storages: Map<TensorSource, string>): PickleInput {
  if (typeof value !== "object" || value === null) return value;
  if (isTensor(value)) {
    const { dtype, shape } = value, [storage] = STORAGES[dtype], count = sizeOf(shape);
    if (!storages.has(value)) storages.set(value, `${storages.size}`);
    const id = ["storage", new PickleName("torch", storage), storages.get(value)!, "cpu", count];
    const stride = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
    const hooks = new PickleCall(new PickleName("collections", "OrderedDict"), []);
    const args = [new PicklePersistent(id), 0, Object.freeze([...shape]), Object.freeze(stride), false, hooks];
    return new PickleCall(new PickleName(UTILS, "_rebuild_tensor_v2"), args);
  }
  if (Array.isArray(value)) {
    const items = value.map((item) => prepare(item, storages));
    return Object.isFrozen(value) ? Object.freeze(items) : items;
  }
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, prepare(item, storages)]));
  if (Object.getPrototypeOf(value) !== Object.prototype) return value as PickleInput;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, prepare(item as TorchInput, storages)]));
}

type Source = TensorSource & { readonly dtype: TorchType };

function isTensor(value: object): value is Source {
  const { data, dtype, shape } = value as Partial<TensorSource>;
  if (typeof data !== "function" || !Array.isArray(shape)) return false;
  if (Object.hasOwn(STORAGES, dtype!)) return true;
  throw new TypeError(`PyTorch has no storage for ${dtype}`);
}
