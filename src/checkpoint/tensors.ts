/** Tensors of the engine to and from safetensors. */
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

/** Tensors of a device, by their names. */
export type NamedTensors = Iterable<readonly [name: string, tensor: Tensor]>;

/** The reference device's floats are F64, so that its runs resume bit for bit too. */
const typeOf = ({ dtype, device }: Tensor): TensorType =>
  dtype === "i32" ? "I32" : device.name === "reference" ? "F64" : "F32";

/** What f32 is read from. */
export const FLOATS: readonly string[] = ["F32", "F64", "F16", "BF16"];

/** How many elements are read at a time, 4 MiB: with 1 MiB reading takes twice as long. */
const BLOCK = 2 ** 20;

/** A tensor in a file, to be read whole or in part. */
export interface StoredTensor {
  readonly dtype: string;
  /** Of the file, for messages. */
  readonly path: string;
  readonly name: string;
  /** All elements: of F64 and I32 they come as they are. */
  all(): Promise<TensorArray>;
  /** Those from `begin` on, as f32. */
  floats(begin: number, out: Float32Array<ArrayBuffer>): Promise<void>;
  /** Of Q8_0, the blocks as they are in the file, from a byte on. */
  bytes?(begin: number, out: Uint8Array<ArrayBuffer>): Promise<void>;
}

/**
 * Reads a tensor of as many elements into a storage, a block at a time.
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
 * Weights that were read. One that is no finite number would end in text of one token for ever, or a loss that is NaN.
 *
 * @param begin the first one's place in the tensor
 * @throws {CheckpointError} when one is NaN or infinite, naming the tensor
 */
export function finite<T extends TensorArray>(values: T, path: string, name: string, begin = 0): T {
  if (values instanceof Float32Array && sumsUp(values)) return values;
  const place = values.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return values;
  throw new CheckpointError(
    `${path}: ${shown(name)} has ${values[place]} as element ${begin + place}, and weights are finite numbers: ` +
      "the file is damaged, or its training has diverged",
  );
}

/** Whether all are finite: then so is their sum, for sums of f32 do not overflow a double. Takes a tenth of what reading takes. */
function sumsUp(values: Float32Array): boolean {
  const whole = values.length & ~3;
  let a = 0, b = 0, c = 0, d = 0; // four, so that an addition need not wait for the one before
  for (let i = 0; i < whole; i += 4) {
    a += values[i];
    b += values[i + 1];
    c += values[i + 2];
    d += values[i + 3];
  }
  for (let i = whole; i < values.length; i++) a += values[i];
  return Number.isFinite(a + b + c + d);
}

/** Whether two tensors of `size` elements have the same ones; NaN is the same as NaN. */
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
 * Says which tensors of a file are left out: those of heads for other tasks, as `v_head` of a value function.
 *
 * @param parameters of the model, by their names
 * @throws {CheckpointError} when one is of a layer past the model's last
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
  if (names.length > 0) onNote?.(`${path}: the model does not use ${some(names.map(shown))}, which is left out`);
}

/** A model's parameters by their names, for a format of weights. @throws {CheckpointError} when an adapter is on the model */
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

/** How a model's weights are loaded. */
export interface LoadOptions {
  /** Where the model is made. */ readonly device: Device;
  /** How matrices are stored: `f32`, the default; `bf16` or `q8_0`, rounded, in half or a quarter of the memory, for inference alone. */
  readonly weights?: GPTOptions["weights"];
  /** Whether the model is only going to generate and to be evaluated, and lies in memory as that likes best; default false. */
  readonly inference?: boolean;
  /** Instead of the model's own: to train it further. */ readonly dropout?: number;
  /** Of dropout; default 1337. */ readonly seed?: number;
  /**
   * Initial weights are drawn from it and then replaced, as nanoGPT's train.py and sample.py do, so that what it draws afterwards
   * is what nanoGPT's would draw. Without, none are drawn.
   */
  readonly generator?: RandomGenerator;
}

/** A model whose weights `fill` brings; where that fails, nothing of it is left. */
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

/** A tensor of a file by its name. */
export function storedIn(file: WeightsFile, name: string): StoredTensor {
  return {
    dtype: file.tensors.get(name)!.dtype,
    path: file.path,
    name,
    all: () => file.readTensor(name),
    floats: (begin, out) => file.readFloats(name, begin, out),
  };
}

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
 * @param options.onNote takes a line on the file's other tensors, which are left out; without, they are refused
 * @throws {CheckpointError} when the file is missing or damaged, holds other tensors, or one that is not finite
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
    if (!there) throw new CheckpointError(`${path} is of another model: it has no ${name}`);
    if (`${there.shape}` !== `${shape}`) {
      throw new CheckpointError(`${path} is of another model: ${name} is [${there.shape}], expected [${shape}]`);
    }
    if (dtype === "i32" ? there.dtype !== "I32" : !FLOATS.includes(there.dtype)) {
      throw new CheckpointError(`${path}: ${name} is ${there.dtype}, expected ${dtype}`);
    }
  }
  const others = [...file.tensors.keys()].filter((name) => !expected.has(name));
  if (onNote) noteUnused(others, { parameters: expected, path, onNote });
  else if (others[0]) throw new CheckpointError(`${path} is of another model: ${others[0]} is not in this one`);
  for (const [name, { storage }] of expected) await readOnto(storage, storedIn(file, name));
}
