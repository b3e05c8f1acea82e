/**
 * Converts runs to nanoGPT's ckpt.pt and back. It works from file to file, without a device, and has only one tensor in
 * memory at a time.
 */
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

/** Settings that train.py and our trainer share. All other settings describe the machine and the paths of files. */
const KEPT = [
  ...["block_size", "n_layer", "n_head", "n_embd", "dropout", "bias"],
  ...["eval_interval", "log_interval", "eval_iters", "always_save_checkpoint", "dataset"],
  ...["gradient_accumulation_steps", "batch_size", "learning_rate", "max_iters", "weight_decay", "beta1", "beta2"],
  ...["grad_clip", "decay_lr", "warmup_iters", "lr_decay_iters", "min_lr"],
];

/** Options of both conversions: `open` creates files; `onNote` is called with a line about what was not converted. */
export type ConversionOptions = { readonly open?: OpenFile; readonly onNote?: (line: string) => void };

/**
 * Converts a checkpoint of a run to a ckpt.pt with weights, optimizer state, iteration, best loss and flags.
 *
 * @param run path of the run's folder
 * @param path path of the ckpt.pt
 * @param options.checkpoint which checkpoint to convert. Default: `last`
 * @throws {CheckpointError} when the run is missing or damaged, or the file cannot be written
 * @throws {ConfigError} when nanoGPT does not support the model
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
 * Converts a ckpt.pt to a run's folder, which can be resumed with init_from=resume. The folder is written under another
 * name and renamed when all of it is on the disk.
 *
 * @param from the ckpt.pt, or its path
 * @param run path of the folder, which must not exist or must be empty
 * @param options.vocabulary the tokenizer, as returned by its toJSON, because a ckpt.pt does not contain it
 * @param options.flags flags that are added to, or replace, the flags in the file
 * @throws {CheckpointError} when the file is missing or damaged, or the folder is not empty or cannot be written;
 *   nothing is left then
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
  if (!stored) onNote(`${path} has no optimizer state: AdamW's moments begin at zero`);
  const { blockSize: block_size, nLayer: n_layer, nHead: n_head, nEmbd: n_embd, dropout, bias } = config;
  const all = { ...kept(file.flags), block_size, n_layer, n_head, n_embd, dropout, bias, ...flags };

  try {
    await createFolder(run, async (partial) => {
      using folder = await RunFolder.create(partial, { flags: all, model: { ...config }, vocabulary }, { open });
      // nanoGPT does not save the state of the random generator: when it resumes, it draws batches from the seed again.
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

/** The state of an optimizer before its first step. */
function zeros(weights: readonly NamedSource[]): NamedSource[] {
  return weights.flatMap(([name, { shape }]) =>
    ["exp_avg", "exp_avg_sq"].map((part): [string, TensorSource] => {
      return [`${name}.${part}`, { dtype: "F32", shape, data: () => new Float32Array(sizeOf(shape)) }];
    })
  );
}
