/** Tensors of the engine to and from safetensors. */
import { CheckpointError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import { SafetensorsFile, type TensorSource, type TensorType } from "../files/safetensors.ts";

export type NamedTensors = Iterable<readonly [name: string, tensor: Tensor]>;

/** The reference device's floats are F64, so that its runs resume bit for bit too. */
const typeOf = ({ dtype, device }: Tensor): TensorType =>
  dtype === "i32" ? "I32" : device.name === "reference" ? "F64" : "F32";

/** What f32 is read from. */
export const FLOATS: readonly TensorType[] = ["F32", "F64", "F16", "BF16"];

/** Tensors as a save writes them: read one after the other, when it is their turn. */
export function* sources(tensors: NamedTensors): Generator<[string, TensorSource]> {
  for (const [name, tensor] of tensors) {
    yield [name, { dtype: typeOf(tensor), shape: tensor.shape, data: () => tensor.data() }];
  }
}

/** The same, read now and all at once: for devices on which each wait costs something, and which can be lost. */
export async function copies(tensors: NamedTensors): Promise<[string, TensorSource][]> {
  return await Promise.all([...tensors].map(async ([name, tensor]): Promise<[string, TensorSource]> => {
    const data = await tensor.data();
    return [name, { dtype: typeOf(tensor), shape: tensor.shape, data: () => data }];
  }));
}

/**
 * Reads the file's tensors into `tensors`. Names and shapes are compared first, so a file of another model changes nothing.
 *
 * @throws {CheckpointError} when the file is missing or damaged, or holds other tensors
 */
export async function loadTensors(path: string, tensors: NamedTensors): Promise<void> {
  using file = await SafetensorsFile.open(path);
  const expected = new Map(tensors);
  for (const [name, { shape, dtype }] of expected) {
    const there = file.tensors.get(name);
    if (!there) throw new CheckpointError(`${path} is of another model: it has no ${name}`);
    if (`${there.shape}` !== `${shape}`) {
      throw new CheckpointError(`${path} is of another model: ${name} is [${there.shape}], expected [${shape}]`);
    }
    if (dtype === "i32" ? there.dtype !== "I32" : !FLOATS.includes(there.dtype)) {
      throw new CheckpointError(`${path}: ${name} is ${there.dtype}, expected ${dtype}`);
    }
  }
  for (const name of file.tensors.keys()) {
    if (!expected.has(name)) throw new CheckpointError(`${path} is of another model: ${name} is not in this one`);
  }
  for (const [name, { device, storage }] of expected) device.write(storage, await file.readTensor(name));
}
