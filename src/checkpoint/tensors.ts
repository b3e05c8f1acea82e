/** Copies tensors between the engine and files, and checks them. */
import { Q8_0, q8ToF32 } from "../engine/q8_0.ts";
import { CheckpointError } from "../errors.ts";
import { type Device, Storage } from "../engine/device.ts";
import type { Tensor } from "../engine/tensor.ts";
import { owned } from "../files/files.ts";
import {
  SafetensorsFile,
  type TensorArray,
  type TensorSource,
  type TensorType,
  type WeightsFile,
} from "../files/safetensors.ts";
import { shown, some } from "../files/shown.ts";
import { GPT, type GPTConfig, type GPTOptions } from "../gpt.ts";
import type { RandomGenerator } from "../random/mod.ts";

/** Tensors on a device, by name. */
export type NamedTensors = Iterable<readonly [name: string, tensor: Tensor]>;

/** The reference device's floats are saved as F64, so that its runs also resume with the same bits. */
const typeOf = ({ dtype, device }: Tensor): TensorType =>
  dtype === "i32" ? "I32" : device.name === "reference" ? "F64" : "F32";

/** Types of files that can be read as f32. */
export const FLOATS: readonly string[] = ["F32", "F64", "F16", "BF16"];

/** Elements read at a time: 4 MiB of f32. With 1 MiB, reading takes twice as long. */
const BLOCK = 2 ** 20;

/** A tensor in a file, which can be read as a whole or in parts. */
export interface StoredTensor {
  readonly dtype: string;
  /** Path of the file, for messages. */
  readonly path: string;
  readonly name: string;
  /** All elements. F64 and I32 are not converted. */
  all(): Promise<TensorArray>;
  /** Fills `out` with elements from `begin` on, as f32. */
  floats(begin: number, out: Float32Array<ArrayBuffer>): Promise<void>;
  /** Fills `out` with the file's Q8_0 blocks, from byte `begin` of the tensor on. */
  bytes?(begin: number, out: Uint8Array<ArrayBuffer>): Promise<void>;
}

/**
 * Reads a tensor into a storage of the same number of elements, a block at a time.
 *
 * @throws {CheckpointError} as {@linkcode finite}
 */
export async function readOnto(storage: Storage, tensor: StoredTensor): Promise<void> {
  const { device, block, offset, length } = storage, { dtype, path, name } = tensor;
  if (dtype === "F64" || dtype === "I32") return device.write(storage, finite(await tensor.all(), path, name));
  const values = new Float32Array(Math.min(BLOCK, length));
  const blocks = dtype === "Q8_0" && storage.dtype === "q8_0" && tensor.bytes
    ? new Uint8Array(values.length / Q8_0.block * Q8_0.bytes)
    : undefined;
  for (let at = 0; at < length; at += BLOCK) {
    const part = values.subarray(0, length - at);
    const bytes = blocks?.subarray(0, part.length / Q8_0.block * Q8_0.bytes);
    if (bytes) await tensor.bytes!(at / Q8_0.block * Q8_0.bytes, bytes);
    await (bytes ? q8ToF32(bytes, part) : tensor.floats(at, part));
    finite(part, path, name, at);
    device.write(new Storage(block, part.length, offset + at), bytes ?? part);
  }
}

/**
 * Checks that weights are finite. A model with NaN or infinite weights would repeat one token forever, or have a loss
 * of NaN.
 *
 * @param begin index of the first value in the tensor, for the message
 * @returns `values`
 * @throws {CheckpointError} when a value is NaN or infinite; the message names the tensor
 */
export function finite<T extends TensorArray>(values: T, path: string, name: string, begin = 0): T {
  if (values instanceof Float32Array && sumsUp(values)) return values;
  const place = values.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return values;
  throw new CheckpointError(
    `${path}: ${shown(name)} has ${values[place]} as element ${begin + place}, but weights must be finite: ` +
      "the file is damaged, or its training has diverged",
  );
}

/**
 * Whether all values are finite. If they are, so is their sum, because a sum of f32 values does not overflow a double.
 * This takes a tenth of the time of reading.
 */
function sumsUp(values: Float32Array): boolean {
  const whole = values.length & ~3;
  let a = 0, b = 0, c = 0, d = 0; // four sums, so that an addition need not wait for the previous one
  for (let i = 0; i < whole; i += 4) {
    a += values[i];
    b += values[i + 1];
    c += values[i + 2];
    d += values[i + 3];
  }
  for (let i = whole; i < values.length; i++) a += values[i];
  return Number.isFinite(a + b + c + d);
}

/** Whether two tensors of `size` elements are equal; NaN counts as equal to NaN. */
export async function sameElements(left: StoredTensor, right: StoredTensor, size: number): Promise<boolean> {
  const blocks = [left, right].map(() => new Float32Array(Math.min(BLOCK, size)));
  for (let at = 0; at < size; at += BLOCK) {
    const [x, y] = blocks.map((block) => block.subarray(0, size - at));
    await left.floats(at, x);
    await right.floats(at, y);
    for (let i = 0; i < x.length; i++) if (x[i] !== y[i] && !(Number.isNaN(x[i]) && Number.isNaN(y[i]))) return false;
  }
  return true;
}

/**
 * Reports tensors of a file that the model does not use, such as a head for another task (`v_head` of a value
 * function).
 *
 * @param names names of the unused tensors
 * @param options.parameters the model's parameters by name
 * @throws {CheckpointError} when an unused tensor belongs to a layer beyond the model's last one
 */
export function noteUnused(
  names: readonly string[],
  { parameters, path, onNote }: {
    parameters: { has(name: string): boolean };
    path: string;
    onNote?: (line: string) => void;
  },
): void {
  const layer = names.find((name) => parameters.has(name.replace(/\b(h|blk)\.\d+\./, "$1.0.")));
  if (layer) {
    throw new CheckpointError(`${path} has more layers than its config says: the model has no ${shown(layer)}`);
  }
  if (names.length > 0) onNote?.(`${path}: tensors that the model does not use are ignored: ${some(names.map(shown))}`);
}

/**
 * A model's parameters by name, for saving in another format.
 * @throws {CheckpointError} when the model has an adapter
 */
export function plainParameters(model: GPT): Map<string, Tensor> {
  const parameters = new Map(model.namedParameters());
  const adapted = parameters.keys().find((name) => name.includes(".base_layer."));
  if (adapted === undefined) return parameters;
  throw new CheckpointError(
    `The model has an adapter on ${
      adapted.replace(/\.base_layer\..*/, "")
    }: merge it into the weights first, or remove it`,
  );
}

/** Options for loading a model. */
export interface LoadOptions {
  /** Device of the model. */ readonly device: Device;
  /**
   * Type of the matrices in memory: `f32` (default), or rounded to `bf16` or `q8_0`, which take about a half or a
   * quarter and are for inference only.
   */
  readonly weights?: GPTOptions["weights"];
  /**
   * Whether the model is used only to generate and evaluate, so that its weights can be laid out for that. Default:
   * false.
   */
  readonly inference?: boolean;
  /** Dropout probability that replaces the model's own, for further training. */ readonly dropout?: number;
  /** Seed of dropout's noise. Default: 1337. */ readonly seed?: number;
  /**
   * Generator from which initial weights are drawn before the loaded weights replace them, as in nanoGPT's train.py and
   * sample.py. Its later numbers are then the same as nanoGPT's. Default: no initial weights are drawn.
   */
  readonly generator?: RandomGenerator;
}

/** Makes a model whose weights are read by `fill`. If `fill` fails, the model is disposed. */
export function loadModel(
  config: Partial<GPTConfig>,
  { device, weights, inference, generator, seed, dropout = config.dropout }: LoadOptions,
  fill: (model: GPT) => Promise<void>,
): Promise<GPT> {
  const options = { device, weights, inference, generator, seed, initialize: !!generator };
  const model = new GPT({ ...config, dropout }, options);
  return owned(model, async () => {
    await fill(model);
    return model;
  });
}

/** The tensor of a file with this name. */
export function storedIn(file: WeightsFile, name: string): StoredTensor {
  return {
    dtype: file.tensors.get(name)!.dtype,
    path: file.path,
    name,
    all: () => file.readTensor(name),
    floats: (begin, out) => file.readFloats(name, begin, out),
  };
}

/** Tensors to write to a file. Each is read from the device when it is written. */
export function* sources(tensors: NamedTensors): Generator<[string, TensorSource]> {
  for (const [name, tensor] of tensors) {
    yield [name, { dtype: typeOf(tensor), shape: tensor.shape, data: () => tensor.data() }];
  }
}

/**
 * Like {@linkcode sources}, but all tensors are read from the device now. For GPUs, on which each read takes long, and
 * which can be lost before the file is written.
 */
export async function copies(tensors: NamedTensors): Promise<[string, TensorSource][]> {
  return await Promise.all([...tensors].map(async ([name, tensor]): Promise<[string, TensorSource]> => {
    const data = await tensor.data();
    return [name, { dtype: typeOf(tensor), shape: tensor.shape, data: () => data }];
  }));
}

/**
 * Reads a safetensors file into `tensors`. Names and shapes are compared first, so if the file belongs to another
 * model, nothing changes.
 *
 * @param options.onNote called with a line about further tensors in the file, which are ignored; without it, they are
 * an error
 * @throws {CheckpointError} when the file is missing or damaged, has other tensors, or has a value that is not finite
 */
export async function loadTensors(
  path: string,
  tensors: NamedTensors,
  { onNote }: { onNote?: (line: string) => void } = {},
): Promise<void> {
  using file = await SafetensorsFile.open(path);
  const expected = new Map(tensors);
  for (const [name, { shape, dtype }] of expected) {
    const there = file.tensors.get(name);
    if (!there) throw new CheckpointError(`${path} belongs to another model: it has no ${name}`);
    if (`${there.shape}` !== `${shape}`) {
      throw new CheckpointError(`${path} belongs to another model: ${name} is [${there.shape}], expected [${shape}]`);
    }
    if (dtype === "i32" ? there.dtype !== "I32" : !FLOATS.includes(there.dtype)) {
      throw new CheckpointError(`${path}: ${name} is ${there.dtype}, expected ${dtype}`);
    }
  }
  const others = [...file.tensors.keys()].filter((name) => !expected.has(name));
  if (onNote) noteUnused(others, { parameters: expected, path, onNote });
  else if (others[0]) throw new CheckpointError(`${path} belongs to another model: this one has no ${others[0]}`);
  for (const [name, { storage }] of expected) await readOnto(storage, storedIn(file, name));
}
