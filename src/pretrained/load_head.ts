/** A model with the head that was trained on it, by its name: a run of finetune, or a folder of transformers'. */
import type { HuggingFaceHead, SavedHead } from "../checkpoint/hugging_face_heads.ts";
import { loadHuggingFace } from "../checkpoint/hugging_face.ts";
import { RunFolder } from "../checkpoint/run_folder.ts";
import { loadTensors } from "../checkpoint/tensors.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { describeHead, type Head, type HeadDescription, headTensors, newHead } from "../finetune/head_description.ts";
import type { GPT } from "../gpt.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { findModel, loadPretrained, loadRun, type PretrainedOptions, putOn, runTokenizer } from "./load.ts";

/** What {@linkcode loadHead} gives. */
export interface PretrainedHead {
  /** In evaluation mode. */ readonly model: GPT;
  /** What its ids mean. */ readonly tokenizer: Tokenizer;
  /** In evaluation mode too. */ readonly head: Head;
  /** What it is asked, and what its scores mean. */ readonly description: HeadDescription;
}

/**
 * Loads a model with its head: a run that `finetune` has trained to a task with labels or choices, or a folder of transformers'
 * `GPT2ForSequenceClassification` or `GPT2DoubleHeadsModel`.
 *
 * @throws {ConfigError} when there is nothing of that name, or it has no head: the message says how to train one
 * @throws {CheckpointError} when what is there is damaged
 * @throws {DeviceError} when it does not fit into the device's memory
 */
export async function loadHead(name: string, options: Omit<PretrainedOptions, "tokenizer">): Promise<PretrainedHead> {
  const { model, tokenizer, head, description } = await loadWithHead(name, options);
  if (head && description) return { model, tokenizer, head, description };
  model.dispose();
  throw new ConfigError(
    `${name} has no head for labels or choices\nThis trains one: ` +
      `deno task finetune --task=classify --init_from=${name} --data=FILE --out_dir=FOLDER`,
  );
}

/** {@linkcode loadHead}, or of what has no head the model alone. */
export async function loadWithHead(
  name: string,
  options: Omit<PretrainedOptions, "tokenizer">,
): Promise<Loaded & Partial<PretrainedHead>> {
  const { kind, path } = await findModel(name, options);
  let made: Pick<PretrainedHead, "head" | "description"> | undefined;
  const keep = (model: GPT, description: HeadDescription) => {
    made?.head.dispose(); // of a checkpoint that has gone while it was read
    made = { description, head: newHead(model, description, { initialize: false }) };
    return made.head;
  };
  const load = kind === "run" ? run : kind === "hugging_face" ? folder : undefined;
  if (!load) return await loadPretrained(name, options);
  try {
    const loaded = await load(path, options, keep), { adapter, onNote } = options;
    if (adapter !== undefined) await putOn(loaded.model, adapter, { head: made?.head, onNote });
    made?.head.eval();
    return { ...loaded, ...made };
  } catch (error) {
    made?.head.dispose();
    throw error;
  }
}

type Loaded = Pick<PretrainedHead, "model" | "tokenizer">;
type Keep = (model: GPT, description: HeadDescription) => Head;

async function run(path: string, options: PretrainedOptions, keep: Keep): Promise<Loaded> {
  const run = await RunFolder.open(path), tokenizer = await runTokenizer(run);
  const model = await loadRun(run, {
    ...options,
    async more({ name, state: { task }, task: file }, model) {
      const description = describeHead(task, `${path}/${name}/state.json`);
      if (!description) return undefined;
      const head = keep(model, description);
      await loadTensors(file, headTensors(head));
      return head;
    },
  });
  return { model, tokenizer };
}

async function folder(path: string, options: PretrainedOptions, keep: Keep): Promise<Loaded> {
  const tokenizer = await loadTokenizer(path);
  return { tokenizer, model: await loadFolder(path, options, keep) };
}

/** The model in a folder of transformers', which may have no vocabulary; `keep` makes the head where there is one. */
export function loadFolder(path: string, options: PretrainedOptions, keep: Keep): Promise<GPT> {
  const head = (found: HuggingFaceHead, model: GPT) => keep(model, descriptionOf(found)).namedParameters();
  return loadHuggingFace(path, { ...options, head });
}

function descriptionOf(
  { architecture, labels, problemType, padTokenId, dropout = 0 }: HuggingFaceHead,
): HeadDescription {
  const choosing = architecture === "GPT2DoubleHeadsModel";
  return {
    kind: choosing ? "choose" : "classify",
    // What transformers takes labels for, where config.json says nothing.
    problemType: problemType ?? (labels.length > 1 || choosing ? "single_label_classification" : "regression"),
    labels,
    padTokenId,
    dropout,
  };
}

/**
 * A head as `saveHuggingFace` takes it.
 *
 * @throws {CheckpointError} when transformers has no class for it: GPT-1's heads have a bias, and similarity two sequences
 */
export function savedHead(
  head: Head,
  { kind, labels, problemType, padTokenId, dropout, tokens }: HeadDescription,
): SavedHead {
  if (kind !== "choose" && tokens) {
    throw new CheckpointError(
      "The head is in GPT-1's form, with a bias, and transformers' GPT2ForSequenceClassification has none: tune with " +
        "--task=classify and without --form=gpt1",
    );
  }
  const tensors = head.namedParameters();
  if (kind === "choose") return { architecture: "GPT2DoubleHeadsModel", labels, padTokenId, dropout, tensors };
  return { architecture: "GPT2ForSequenceClassification", labels, problemType, padTokenId, tensors };
}
