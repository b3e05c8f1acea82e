/** The model in a ckpt.pt: its sizes and its weights, and whether they belong together. See nanogpt.ts. */
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
/** What torch.compile puts before the names. */
const PREFIX = "_orig_mod.";
/** Where PyTorch is older than 2.0, the causal mask is saved with the weights. */
const MASK = /\.attn\.bias$/;

/** A name and a shape for each parameter of a model. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Names and shapes of the parameters of such a model, in its order. */
export function shapesOf(config: GPTConfig): Map<string, readonly number[]> {
  const model = new GPT(config, { device: new DryDevice(new ReferenceDevice()), initialize: false });
  return new Map([...model.namedParameters()].map(([name, { shape }]) => [name, shape]));
}

/**
 * The names in the order of PyTorch's numbers, in groups: those that decay, and the others. The first is nanoGPT's; the second
 * that of its first versions, where embeddings did not decay and each group was sorted by name.
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
    if (!(tensor instanceof TorchTensor)) throw new CheckpointError(`${path} is damaged: ${shown(name)} is no tensor`);
    if (tensors.has(name)) throw new CheckpointError(`${path} is damaged: ${shown(name)} is there twice`);
    tensors.set(name, tensor);
  }
  return tensors;
}

/** @param most how many tensors there are: a model of more layers need not be made to be refused */
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
  const bias = args.get("bias") ?? true, dropout = args.get("dropout") ?? 0; // the first versions had neither
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
    // nanoGPT has one activation; a model of another, saved by saveNanoGPT, says so.
    ...(known && { activation: activation as keyof typeof ACTIVATIONS }),
  };
}

/**
 * @param onNote takes a line on tensors that the model does not use
 * @returns names and shapes of the model's parameters
 * @throws {CheckpointError} when one is missing in the file, or of another shape or type
 */
export function checkWeights(
  config: GPTConfig,
  tensors: ReadonlyMap<string, TorchTensor>,
  { path, onNote }: { path: string; onNote?: (line: string) => void },
): Shapes {
  const refuse = (why: string) => new CheckpointError(`${path} is not of the model in its model_args: ${why}`);
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

/** In nanoGPT the head and the embeddings are one; a file that has them apart must have the same twice. */
export async function checkTied(file: TorchFile, tensors: ReadonlyMap<string, TorchTensor>): Promise<void> {
  const head = tensors.get(HEAD), embeddings = tensors.get(EMBEDDINGS)!;
  if (!head || head.storage === embeddings.storage && head.offset === embeddings.offset) return;
  const [left, right] = [storedTensor(file, head, HEAD), storedTensor(file, embeddings, EMBEDDINGS)];
  if (await sameElements(left, right, head.size)) return;
  throw new CheckpointError(`${file.path}: ${HEAD} and ${EMBEDDINGS} differ, and in nanoGPT they are the same`);
}

export function storedTensor(file: TorchFile, tensor: TorchTensor, name: string): StoredTensor {
  const { dtype } = tensor,
    floats = (begin: number, out: Float32Array<ArrayBuffer>) => file.readFloats(tensor, begin, out);
  return { dtype, path: file.path, name, all: () => file.read(tensor, name), floats };
}
