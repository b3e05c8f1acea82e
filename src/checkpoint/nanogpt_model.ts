/** Checks the model in a ckpt.pt: its config, and whether the weights fit it. See nanogpt.ts. */
import { DryDevice } from "../device/dry.ts";
import { ReferenceDevice } from "../device/reference.ts";
import { CheckpointError } from "../errors.ts";
import { ACTIVATIONS, GPT, type GPTConfig } from "../gpt.ts";
import type { PickleDict } from "../files/pickle_values.ts";
import { shown } from "../files/shown.ts";
import type { TorchFile } from "../files/torch_file.ts";
import { noteUnused, sameElements, type StoredTensor } from "./tensors.ts";
import { TorchTensor } from "../files/torch_structure.ts";

export const HEAD = "lm_head.weight", EMBEDDINGS = "transformer.wte.weight";
/** Prefix that torch.compile puts before the names. */
const PREFIX = "_orig_mod.";
/** Causal masks, which nanoGPT saves among the weights if PyTorch is older than 2.0. */
const MASK = /\.attn\.bias$/;

/** The shape of each parameter of a model, by name. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Names and shapes of the parameters of a model with this config, in the model's order. */
export function shapesOf(config: GPTConfig): Map<string, readonly number[]> {
  const model = new GPT(config, { device: new DryDevice(new ReferenceDevice()), initialize: false });
  return new Map([...model.namedParameters()].map(([name, { shape }]) => [name, shape]));
}

/**
 * Two possible orders of the parameters in PyTorch's optimizer state, each as two groups: parameters with weight decay,
 * and parameters without. The first order is nanoGPT's. The second is that of its first versions, in which embeddings
 * had no weight decay and each group was sorted by name.
 */
export function numberings(shapes: Shapes): string[][][] {
  const names = [...shapes.keys()], decays = (name: string) => shapes.get(name)!.length >= 2;
  const decayed = (name: string) => decays(name) && !/\.wte\.|\.wpe\./.test(name);
  const split = (holds: (name: string) => boolean) => [names.filter(holds), names.filter((name) => !holds(name))];
  return [split(decays), split(decayed).map((group) => group.sort())];
}

export const isFloat = ({ dtype }: TorchTensor): boolean => dtype.includes("F");

export function weightsIn(model: PickleDict, path: string): Map<string, TorchTensor> {
  const tensors = new Map<string, TorchTensor>();
  for (const [key, tensor] of model) {
    const name = typeof key === "string" && key.startsWith(PREFIX) ? key.slice(PREFIX.length) : `${key}`;
    if (MASK.test(name)) continue;
    if (!(tensor instanceof TorchTensor)) {
      throw new CheckpointError(`${path} is damaged: ${shown(name)} is not a tensor`);
    }
    if (tensors.has(name)) throw new CheckpointError(`${path} is damaged: ${shown(name)} occurs twice`);
    tensors.set(name, tensor);
  }
  return tensors;
}

/**
 * Converts the model_args of a ckpt.pt to a config.
 * @param options.most number of tensors in the file; a larger n_layer is rejected before a model of that size is built
 */
export function configOf(
  args: PickleDict,
  { flags, path, most }: { flags: Readonly<Record<string, unknown>>; path: string; most: number },
): GPTConfig {
  const refuse = (name: string) =>
    new CheckpointError(`${path} is damaged: its model_args have ${name} ${shown(`${args.get(name)}`)}`);
  const count = (name: string): number => {
    const value = args.get(name);
    if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
    throw refuse(name);
  };
  const bias = args.get("bias") ?? true, dropout = args.get("dropout") ?? 0; // nanoGPT's first versions saved neither
  if (typeof bias !== "boolean") throw refuse("bias");
  if (typeof dropout !== "number" || !(dropout >= 0 && dropout < 1)) throw refuse("dropout");
  if (count("n_layer") > most) throw refuse("n_layer");
  const { activation } = flags, known = typeof activation === "string" && Object.hasOwn(ACTIVATIONS, activation);
  return {
    blockSize: count("block_size"),
    vocabSize: count("vocab_size"),
    nLayer: count("n_layer"),
    nHead: count("n_head"),
    nEmbd: count("n_embd"),
    dropout,
    bias,
    // nanoGPT has only GELU. If a model has another activation, saveNanoGPT adds this flag.
    ...(known && { activation: activation as keyof typeof ACTIVATIONS }),
  };
}

/**
 * Checks the tensors of a file against the config.
 *
 * @param options.onNote called with a line about tensors that the model does not use
 * @returns names and shapes of the model's parameters
 * @throws {CheckpointError} when a parameter is missing in the file, or has another shape or type
 */
export function checkWeights(
  config: GPTConfig,
  tensors: ReadonlyMap<string, TorchTensor>,
  { path, onNote }: { path: string; onNote?: (line: string) => void },
): Shapes {
  const refuse = (why: string) => new CheckpointError(`${path} does not fit the model in its model_args: ${why}`);
  let shapes;
  try {
    shapes = shapesOf(config);
  } catch (error) {
    throw refuse((error as Error).message);
  }
  for (const [name, shape] of [...shapes, [HEAD, shapes.get(EMBEDDINGS)!] as const]) {
    const tensor = tensors.get(name);
    if (!tensor) {
      if (name === HEAD) continue;
      throw refuse(`it has no ${name}`);
    }
    if (`${tensor.shape}` !== `${shape}`) throw refuse(`${name} is [${tensor.shape}], expected [${shape}]`);
    if (!isFloat(tensor)) throw refuse(`${name} is ${tensor.dtype}, expected floats`);
  }
  noteUnused([...tensors.keys()].filter((name) => name !== HEAD && !shapes.has(name)), {
    parameters: shapes,
    path,
    onNote,
  });
  return shapes;
}

/** nanoGPT's head and embeddings share a weight. If a file stores it twice, both copies must be equal. */
export async function checkTied(file: TorchFile, tensors: ReadonlyMap<string, TorchTensor>): Promise<void> {
  const head = tensors.get(HEAD), embeddings = tensors.get(EMBEDDINGS)!;
  if (!head || head.storage === embeddings.storage && head.offset === embeddings.offset) return;
  const [left, right] = [storedTensor(file, head, HEAD), storedTensor(file, embeddings, EMBEDDINGS)];
  if (await sameElements(left, right, head.size)) return;
  throw new CheckpointError(`${file.path}: ${HEAD} and ${EMBEDDINGS} differ, but in nanoGPT they are one weight`);
}

export function storedTensor(file: TorchFile, tensor: TorchTensor, name: string): StoredTensor {
  const { dtype } = tensor,
    floats = (begin: number, out: Float32Array<ArrayBuffer>) => file.readFloats(tensor, begin, out);
  return { dtype, path: file.path, name, all: () => file.read(tensor, name), floats };
}
