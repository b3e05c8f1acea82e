/** nanoGPT's ckpt.pt, written: train.py goes on from it with init_from=resume, sample.py samples. See nanogpt.ts. */
import { CheckpointError, ConfigError } from "../errors.ts";
import { completeConfig, type GPT, type GPTConfig } from "../gpt.ts";
import type { AdamW } from "../optim/adamw.ts";
import { TRAIN_PY } from "../optim/schedule.ts";
import type { OpenFile } from "../files/files.ts";
import { Lock } from "../files/locks.ts";
import { NO_LOSS } from "./nanogpt.ts";
import { EMBEDDINGS, HEAD, numberings, type Shapes, shapesOf } from "./nanogpt_model.ts";
import { PickleFloat, type PickleInput } from "../files/pickle_writer.ts";
import type { NamedSource, TensorSource } from "../files/safetensors.ts";
import { copies, plainParameters, sources } from "./tensors.ts";
import { type TorchInput, writeTorchFile } from "../files/torch_writer.ts";

/** How far a training was. */
export interface NanoGPTProgress {
  /** The iteration that comes next: how many updates were made. */
  readonly iter: number;
  /** Nats a token; null before the first evaluation. */
  readonly bestValLoss: number | null;
  /** What the run was told, by train.py's names; AdamW's numbers are taken from there, else train.py's defaults. */
  readonly flags?: Readonly<Record<string, unknown>>;
}

/** What a ckpt.pt is made of. */
export interface NanoGPTCheckpoint extends NanoGPTProgress {
  /** Of the model. */ readonly config: Partial<GPTConfig>;
  /** By the names of the model's parameters. */ readonly weights: Iterable<NamedSource>;
  /** By the names of {@linkcode AdamW.namedState}; of parameters without, and without any, train.py's begins anew. */
  readonly optimizer?: { readonly steps: number; readonly tensors: Iterable<NamedSource> };
}

/**
 * Writes a ckpt.pt, one tensor at a time, beside `path`, and renames it.
 *
 * @param options.open how the file is created
 * @throws {ConfigError} when nanoGPT has no such model
 * @throws {CheckpointError} when a tensor is missing or of another shape, the file cannot be written, or another process writes it
 */
export async function writeNanoGPT(
  path: string,
  { config: given, weights, optimizer, iter, bestValLoss, flags = {} }: NanoGPTCheckpoint,
  { open }: { open?: OpenFile } = {},
): Promise<void> {
  const config = completeConfig(given);
  checkModel(config);
  const { nLayer, nHead, nEmbd, blockSize, bias, vocabSize, dropout, activation } = config;
  const shapes = shapesOf(config), all = new Map(weights), model = new Map<string, TensorSource>();
  for (const [name, shape] of shapes) model.set(name, named(all, name, shape));
  model.set(HEAD, model.get(EMBEDDINGS)!);
  const args = {
    ...{ n_layer: nLayer, n_head: nHead, n_embd: nEmbd, block_size: blockSize, bias, vocab_size: vocabSize },
    dropout: new PickleFloat(dropout),
  };
  const settings = new Map<string, PickleInput>();
  for (const [name, value] of Object.entries(flags)) {
    if (typeof value === "string" || typeof value === "boolean") settings.set(name, value);
    if (typeof value === "number") settings.set(name, FLOATS.has(name) ? new PickleFloat(value) : value);
  }
  if (activation !== "gelu") settings.set("activation", activation);
  using _ = await Lock.take(path, { beside: true });
  await writeTorchFile(path, {
    model,
    optimizer: optimizerOf(shapes, optimizer, flags),
    model_args: args,
    iter_num: iter,
    best_val_loss: new PickleFloat(bestValLoss ?? NO_LOSS),
    config: settings,
  }, { open });
}

/**
 * Saves a model, and the optimizer's state where it is given, as nanoGPT would.
 *
 * @param options.optimizer made by the model's configureOptimizers
 * @throws {ConfigError} when nanoGPT has no such model: another activation than GELU, another inner width or epsilon, a head of
 *   its own
 * @throws {CheckpointError} when the file cannot be written
 * @example
 * ```ts ignore
 * await saveNanoGPT("out/ckpt.pt", model, { optimizer, iter: 250, bestValLoss: 1.88, flags: { learning_rate: 1e-3 } });
 * ```
 */
export async function saveNanoGPT(
  path: string,
  model: GPT,
  { optimizer, ...progress }: NanoGPTProgress & { optimizer?: AdamW },
): Promise<void> {
  const { config, device } = model, read = device.readsAtOnce ? sources : copies;
  const weights = await read(plainParameters(model));
  const state = optimizer && { steps: optimizer.t, tensors: await read(optimizer.namedState()) };
  await writeNanoGPT(path, { config, weights, optimizer: state, ...progress });
}

function named(tensors: ReadonlyMap<string, TensorSource>, name: string, shape: readonly number[]): TensorSource {
  const tensor = tensors.get(name);
  if (!tensor) throw new CheckpointError(`${name} is missing, which a model of this config has`);
  if (`${tensor.shape}` === `${shape}`) return tensor;
  throw new CheckpointError(`${name} is [${tensor.shape}], and in a model of this config [${shape}]`);
}

/** Flags that are floats in train.py though their value may be whole. */
const FLOATS = new Set([
  ...["dropout", "learning_rate", "weight_decay", "beta1", "beta2", "grad_clip", "min_lr"],
]);

/** @throws {ConfigError} when nanoGPT cannot compute what such a model does */
function checkModel({ nEmbd, nInner, activation, layerNormEpsilon, tieWordEmbeddings }: Required<GPTConfig>): void {
  const refuse = (what: string) => new ConfigError(`nanoGPT has no such model: ${what}`);
  if (activation === "relu") throw refuse("its activation is relu, not GELU");
  if (nInner !== 4 * nEmbd) throw refuse(`nInner is ${nInner}, not ${4 * nEmbd}`);
  if (layerNormEpsilon !== 1e-5) throw refuse(`layerNormEpsilon is ${layerNormEpsilon}, not 1e-5`);
  if (!tieWordEmbeddings) throw refuse("its head has weights of its own");
}

/** What `torch.optim.AdamW.state_dict()` gives. */
function optimizerOf(
  shapes: Shapes,
  optimizer: NanoGPTCheckpoint["optimizer"],
  flags: Readonly<Record<string, unknown>>,
): TorchInput {
  const { learningRate, beta1, beta2, weightDecay } = TRAIN_PY;
  const flag = (name: string, fallback: number) => Number(flags[name] ?? fallback);
  const float = (value: number) => new PickleFloat(value);
  const betas = Object.freeze([float(flag("beta1", beta1)), float(flag("beta2", beta2))]);
  const [names] = numberings(shapes);
  let number = 0;
  const groups = names.map((group, i) => ({
    lr: float(flag("learning_rate", learningRate)),
    betas,
    eps: float(1e-8),
    weight_decay: float(i === 0 ? flag("weight_decay", weightDecay) : 0),
    ...{ amsgrad: false, maximize: false, foreach: null, capturable: false, differentiable: false, fused: null },
    decoupled_weight_decay: true,
    params: group.map(() => number++),
  }));
  const state = new Map<number, TorchInput>();
  if (optimizer && optimizer.steps > 0) {
    const tensors = new Map(optimizer.tensors);
    for (const [i, name] of names.flat().entries()) {
      if (!tensors.has(`${name}.exp_avg`)) continue; // frozen: PyTorch has no state of what had no gradient
      const step: TensorSource = { dtype: "F32", shape: [], data: () => Float32Array.of(optimizer.steps) };
      const [m, v] = ["exp_avg", "exp_avg_sq"].map((part) => named(tensors, `${name}.${part}`, shapes.get(name)!));
      state.set(i, { step, exp_avg: m, exp_avg_sq: v });
    }
  }
  return { state, param_groups: groups };
}
