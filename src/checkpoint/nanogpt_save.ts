/**
 * Writes nanoGPT's ckpt.pt, which train.py can resume (init_from=resume) and sample.py can sample from. See nanogpt.ts.
 */
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

/** The progress of a training run. */
export interface NanoGPTProgress {
  /** Number of the next iteration, which is also the number of completed updates. */
  readonly iter: number;
  /** Best validation loss in nats per token; null before the first evaluation. */
  readonly bestValLoss: number | null;
  /**
   * The run's settings by train.py's names. AdamW's hyper-parameters come from here, or else are train.py's defaults.
   */
  readonly flags?: Readonly<Record<string, unknown>>;
}

/** The contents of a ckpt.pt. */
export interface NanoGPTCheckpoint extends NanoGPTProgress {
  /** The model's config. */ readonly config: Partial<GPTConfig>;
  /** Weights by the names of the model's parameters. */ readonly weights: Iterable<NamedSource>;
  /**
   * AdamW's steps, and its moving averages by the names of {@linkcode AdamW.namedState}. When train.py resumes, missing
   * averages start from zero.
   */
  readonly optimizer?: { readonly steps: number; readonly tensors: Iterable<NamedSource> };
}

/**
 * Writes a ckpt.pt. It is written under another name, one tensor at a time, and then renamed to `path`.
 *
 * @param options.open function that creates the file
 * @throws {ConfigError} when nanoGPT does not support the model
 * @throws {CheckpointError} when a tensor is missing or has another shape, the file cannot be written, or another
 * process writes it
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
 * Saves a model, and optionally the optimizer's state, as a ckpt.pt of nanoGPT.
 *
 * @param options.optimizer optimizer made by the model's configureOptimizers
 * @throws {ConfigError} when nanoGPT does not support the model: its activation is not GELU, its inner width or epsilon
 *   is not the default, or its head is not tied to the embeddings
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
  if (!tensor) throw new CheckpointError(`${name} is missing, but a model of this config needs it`);
  if (`${tensor.shape}` === `${shape}`) return tensor;
  throw new CheckpointError(`${name} is [${tensor.shape}], but [${shape}] in a model of this config`);
}

/** Settings that are floats in train.py even if their value is a whole number. */
const FLOATS = new Set([
  ...["dropout", "learning_rate", "weight_decay", "beta1", "beta2", "grad_clip", "min_lr"],
]);

/** @throws {ConfigError} when nanoGPT does not support a model of this config */
function checkModel({ nEmbd, nInner, activation, layerNormEpsilon, tieWordEmbeddings }: Required<GPTConfig>): void {
  const refuse = (what: string) => new ConfigError(`nanoGPT does not support this model: ${what}`);
  if (activation === "relu") throw refuse("its activation is relu, not GELU");
  if (nInner !== 4 * nEmbd) throw refuse(`nInner is ${nInner}, not ${4 * nEmbd}`);
  if (layerNormEpsilon !== 1e-5) throw refuse(`layerNormEpsilon is ${layerNormEpsilon}, not 1e-5`);
  if (!tieWordEmbeddings) throw refuse("its head is not tied to the embeddings");
}

/** The optimizer's state in the form of `torch.optim.AdamW.state_dict()`. */
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
      if (!tensors.has(`${name}.exp_avg`)) continue; // frozen: PyTorch has no state for parameters without a gradient
      const step: TensorSource = { dtype: "F32", shape: [], data: () => Float32Array.of(optimizer.steps) };
      const [m, v] = ["exp_avg", "exp_avg_sq"].map((part) => named(tensors, `${name}.${part}`, shapes.get(name)!));
      state.set(i, { step, exp_avg: m, exp_avg_sq: v });
    }
  }
  return { state, param_groups: groups };
}
