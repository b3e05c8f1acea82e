/** Loads a model with its trained head by a name: a run of finetune, or a Hugging Face folder. */
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

/** A loaded model with its head, the result of {@linkcode loadHead}. */
export interface PretrainedHead {
  /** The model, in evaluation mode. */ readonly model: GPT;
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
  /** The head, in evaluation mode. */ readonly head: Head;
  /** The head's task, and the meaning of its scores. */ readonly description: HeadDescription;
}

/**
 * Loads a model with its head: a run of `finetune` for a task with labels or choices, or a folder of transformers'
 * `GPT2ForSequenceClassification` or `GPT2DoubleHeadsModel`.
 *
 * @throws {ConfigError} if there is no model with this name, or it has no head; the message says how to train one
 * @throws {CheckpointError} if the files are damaged
 * @throws {DeviceError} if the model does not fit into the device's memory
 */
export async function loadHead(name: string, options: Omit<PretrainedOptions, "tokenizer">): Promise<PretrainedHead> {
  const { model, tokenizer, head, description } = await loadWithHead(name, options);
  if (head && description) return { model, tokenizer, head, description };
  model.dispose();
  throw new ConfigError(
    `${name} has no head for labels or choices\nThe command finetune trains one: ` +
      `--task=classify --init_from=${name} --data=FILE --out_dir=FOLDER`,
  );
}

/** Loads a model, and its head if it has one. */
export async function loadWithHead(
  name: string,
  options: Omit<PretrainedOptions, "tokenizer">,
): Promise<Loaded & Partial<PretrainedHead>> {
  const { kind, path } = await findModel(name, options);
  let made: Pick<PretrainedHead, "head" | "description"> | undefined;
  const keep = (model: GPT, description: HeadDescription) => {
    made?.head.dispose(); // frees the head of an earlier attempt, whose checkpoint was deleted while it was read
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

/**
 * Loads the model of a Hugging Face folder, which needs no tokenizer files. If the folder has a head, `keep` is called
 * to make it.
 */
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
    // transformers' default if config.json does not name the type.
    problemType: problemType ?? (labels.length > 1 || choosing ? "single_label_classification" : "regression"),
    labels,
    padTokenId,
    dropout,
  };
}

/**
 * Converts a head for `saveHuggingFace`.
 *
 * @throws {CheckpointError} if transformers has no class for the head: a head in GPT-1's form has a bias, and one for
 *   similarity takes two sequences
 */
export function savedHead(
  head: Head,
  { kind, labels, problemType, padTokenId, dropout, tokens }: HeadDescription,
): SavedHead {
  if (kind !== "choose" && tokens) {
    throw new CheckpointError(
      "The head is in GPT-1's form, with a bias, and transformers' GPT2ForSequenceClassification has no bias: tune with " +
        "--task=classify and without --form=gpt1",
    );
  }
  const tensors = head.namedParameters();
  if (kind === "choose") return { architecture: "GPT2DoubleHeadsModel", labels, padTokenId, dropout, tensors };
  return { architecture: "GPT2ForSequenceClassification", labels, problemType, padTokenId, tensors };
}
