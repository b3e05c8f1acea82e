/** Runs to nanoGPT's ckpt.pt and back, from file to file: no device, and one tensor in memory at a time. */
import { CheckpointError } from "../errors.ts";
import { completeConfig, type GPTConfig } from "../gpt.ts";
import { reason } from "../files/reason.ts";
import { sizeOf } from "../engine/tensor.ts";
import { parseState } from "./trainer_state.ts";
import { type OpenFile, owned } from "../files/files.ts";
import { createFolder } from "../files/locks.ts";
import { NanoGPTFile } from "./nanogpt.ts";
import { shapesOf } from "./nanogpt_model.ts";
import { writeNanoGPT } from "./nanogpt_save.ts";
import type { SavedCheckpoint } from "./checkpoint_folder.ts";
import { RunFolder } from "./run_folder.ts";
import { finite, noteUnused } from "./tensors.ts";
import { type NamedSource, SafetensorsFile, type TensorSource } from "../files/safetensors.ts";

/** train.py's settings that hold here too; its others, and ours, say on what machine it ran and where its files were. */
const KEPT = [
  ...["block_size", "n_layer", "n_head", "n_embd", "dropout", "bias"],
  ...["eval_interval", "log_interval", "eval_iters", "always_save_checkpoint", "dataset"],
  ...["gradient_accumulation_steps", "batch_size", "learning_rate", "max_iters", "weight_decay", "beta1", "beta2"],
  ...["grad_clip", "decay_lr", "warmup_iters", "lr_decay_iters", "min_lr"],
];

/** How files are created, and what takes a line for the user, without a newline, when something is worth knowing. */
export type ConversionOptions = { readonly open?: OpenFile; readonly onNote?: (line: string) => void };

/**
 * Writes a checkpoint of a run as a ckpt.pt: weights, the optimizer's state, iteration, best loss and flags.
 *
 * @param run the run's folder
 * @param path of the ckpt.pt
 * @param options.checkpoint which; default `last`
 * @throws {CheckpointError} when the run is missing or damaged, or the file cannot be written
 * @throws {ConfigError} when nanoGPT has no such model
 */
export async function runToNanoGPT(
  run: string,
  path: string,
  { checkpoint = "last", open, onNote }: ConversionOptions & { checkpoint?: "last" | "best" } = {},
): Promise<void> {
  const folder = await RunFolder.open(run), { flags, model: config } = folder.description;
  const { saved, ...files } = await folder.read(checkpoint, opened);
  using model = files.model, optimizer = files.optimizer;
  const state = parseState(`${run}/${saved.name}/state.json`, saved.state);
  const parameters = shapesOf(completeConfig(config as Partial<GPTConfig>)), { path: from, tensors } = model;
  noteUnused([...tensors.keys()].filter((name) => !parameters.has(name)), { parameters, path: from, onNote });
  await writeNanoGPT(path, {
    config: config as Partial<GPTConfig>,
    weights: sourcesOf(model),
    optimizer: { steps: state.optimizerSteps, tensors: sourcesOf(optimizer) },
    iter: state.iter,
    bestValLoss: state.bestValLoss,
    flags: kept(flags),
  }, { open });
}

async function opened(saved: SavedCheckpoint) {
  return await owned(await SafetensorsFile.open(saved.model), async (model) => {
    return { saved, model, optimizer: await SafetensorsFile.open(saved.optimizer) };
  });
}

/**
 * Makes a run's folder out of a ckpt.pt: train goes on from it with init_from=resume, as train.py would. It has another name
 * until all of it is on the disk.
 *
 * @param from the ckpt.pt, or its path
 * @param run the folder, which must not be there, or be empty
 * @param options.vocabulary what the run's tokens mean, as a tokenizer's toJSON gives it: a ckpt.pt does not say
 * @param options.flags besides those of the file, and over them
 * @throws {CheckpointError} when the file is missing or damaged, or the folder is there or cannot be written; nothing is left
 */
export async function nanoGPTToRun(
  from: string | NanoGPTFile,
  run: string,
  { vocabulary, flags = {}, open, onNote = () => {} }: ConversionOptions & {
    vocabulary: Readonly<Record<string, unknown>>;
    flags?: Readonly<Record<string, unknown>>;
  },
): Promise<void> {
  using opened = typeof from === "string" ? await NanoGPTFile.open(from, { onNote }) : undefined;
  const file = opened ?? from as NanoGPTFile, { path } = file;
  const { config, iter, bestValLoss } = file, weights = file.weights();
  const stored = await file.optimizer(), optimizer = stored ?? { steps: 0, tensors: zeros(weights) };
  if (!stored) onNote(`${path} holds no optimizer state: AdamW's moments begin at zero`);
  const { blockSize: block_size, nLayer: n_layer, nHead: n_head, nEmbd: n_embd, dropout, bias } = config;
  const all = { ...kept(file.flags), block_size, n_layer, n_head, n_embd, dropout, bias, ...flags };

  try {
    await createFolder(run, async (partial) => {
      using folder = await RunFolder.create(partial, { flags: all, model: { ...config }, vocabulary }, { open });
      // Without a generator's state: nanoGPT saves none, and begins its batches anew from the seed.
      const drawn = { generator: null, offsets: [], dropoutPasses: 0 };
      const state = { iter, evaluated: false, bestValLoss, ...drawn, optimizerSteps: optimizer.steps };
      await folder.save({ iter, model: weights, optimizer: optimizer.tensors, state }, { best: bestValLoss !== null });
    });
  } catch (error) {
    const why = reason(error).replace(/; no checkpoint was saved yet$/, "");
    throw new CheckpointError(`Cannot make a run of ${path}: ${why}`);
  }
}

const kept = (flags: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(KEPT.filter((name) => Object.hasOwn(flags, name)).map((name) => [name, flags[name]]));

function sourcesOf(file: SafetensorsFile): NamedSource[] {
  return [...file.tensors].map(([name, { dtype, shape }]) => {
    return [name, { dtype, shape, data: async () => finite(await file.readTensor(name), file.path, name) }];
  });
}

/** The state of an optimizer that has made no step. */
function zeros(weights: readonly NamedSource[]): NamedSource[] {
  return weights.flatMap(([name, { shape }]) =>
    ["exp_avg", "exp_avg_sq"].map((part): [string, TensorSource] => {
      return [`${name}.${part}`, { dtype: "F32", shape, data: () => new Float32Array(sizeOf(shape)) }];
    })
  );
}
