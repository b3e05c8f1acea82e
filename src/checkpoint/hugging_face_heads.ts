/**
 * Heads on a GPT-2 in transformers, `GPT2ForSequenceClassification` and `GPT2DoubleHeadsModel`: their fields in
 * config.json, and the names and shapes of their tensors (https://huggingface.co/docs/transformers/model_doc/gpt2).
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { NamedTensors } from "./tensors.ts";

type Json = Readonly<Record<string, unknown>>;

/** The kind of labels that a classifier predicts, by transformers' names. */
export type ProblemType = "single_label_classification" | "multi_label_classification" | "regression";
/** Every {@linkcode ProblemType}. */
export const PROBLEM_TYPES = [
  "single_label_classification",
  "multi_label_classification",
  "regression",
] as const satisfies readonly ProblemType[];

/** transformers' default names of labels. */
export const numbered = (count: number): string[] => Array.from({ length: count }, (_, id) => `LABEL_${id}`);

/** A head as described by config.json. */
export interface HuggingFaceHead {
  /** The class of transformers that loads the folder. */
  readonly architecture: "GPT2ForSequenceClassification" | "GPT2DoubleHeadsModel";
  /** Names of the labels, `id2label`. A multiple-choice head has one. */ readonly labels: readonly string[];
  /** The kind of labels. If it is not set, transformers infers it from the first labels in training. */
  readonly problemType?: ProblemType;
  /** Id of the token that pads rows. */ readonly padTokenId?: number;
  /** Dropout probability before a multiple-choice head: `summary_first_dropout`. */ readonly dropout?: number;
}

/** A head to save. */
export interface SavedHead extends HuggingFaceHead {
  /** The head's parameters by transformers' names. */ readonly tensors: NamedTensors;
}

/** Architectures that have a head. */
const HEADED = ["GPT2ForSequenceClassification", "GPT2DoubleHeadsModel"] as const;

/** Names and shapes of a head's tensors. */
export function headShapes({ architecture, labels }: HuggingFaceHead, nEmbd: number): [string, readonly number[]][] {
  if (architecture === "GPT2ForSequenceClassification") return [["score.weight", [labels.length, nEmbd]]];
  const summary = "multiple_choice_head.summary";
  return [[`${summary}.weight`, [1, nEmbd]], [`${summary}.bias`, [1]]];
}

/**
 * The only supported summary of a multiple-choice head: one token's hidden state through a linear layer with one
 * output.
 */
const SUMMARY = {
  summary_type: "cls_index",
  summary_use_proj: true,
  summary_proj_to_labels: true,
  summary_activation: null,
  summary_last_dropout: 0,
};

/**
 * The head that config.json describes; undefined for a model without one.
 *
 * @param path path of the file, for messages
 * @throws {CheckpointError} when the labels are not numbered from 0, or the head's computation is not supported
 */
export function headOf(json: Json, path: string): HuggingFaceHead | undefined {
  const { architectures, id2label, num_labels, problem_type: problem = null, pad_token_id: pad = null } = json;
  const architecture = Array.isArray(architectures) ? HEADED.find((name) => name === architectures[0]) : undefined;
  if (!architecture) return undefined;
  const refuse = (field: string, expected: string) =>
    new CheckpointError(`${path}: ${field} is ${JSON.stringify(json[field])}; expected ${expected}`);
  const padTokenId = pad === null ? undefined : pad;
  if (padTokenId !== undefined && !(Number.isSafeInteger(padTokenId) && (padTokenId as number) >= 0)) {
    throw refuse("pad_token_id", "the id of a token");
  }
  if (architecture === "GPT2DoubleHeadsModel") {
    for (const [field, value] of Object.entries(SUMMARY)) {
      const said = Object.hasOwn(json, field) ? json[field] : field === "summary_last_dropout" ? 0 : value;
      if (said !== value) throw refuse(field, JSON.stringify(value));
    }
    const dropout = json.summary_first_dropout ?? 0.1;
    if (!(typeof dropout === "number" && dropout >= 0 && dropout <= 1)) {
      throw refuse("summary_first_dropout", "a number from 0 to 1");
    }
    return { architecture, labels: ["LABEL_0"], padTokenId: padTokenId as number | undefined, dropout };
  }
  const problemType = PROBLEM_TYPES.find((name) => name === problem);
  if (problem !== null && !problemType) throw refuse("problem_type", PROBLEM_TYPES.join(", "));
  if (id2label === undefined || id2label === null) {
    const count = num_labels ?? 2;
    if (!(Number.isSafeInteger(count) && (count as number) > 0)) throw refuse("num_labels", "a whole number above 0");
    return {
      architecture,
      labels: numbered(count as number),
      problemType,
      padTokenId: padTokenId as number | undefined,
    };
  }
  const labels = isObject(id2label) ? numbered(Object.keys(id2label).length).map((_, id) => id2label[id]) : [];
  if (labels.length === 0 || !labels.every((label): label is string => typeof label === "string")) {
    throw refuse("id2label", "a name for each number from 0 on");
  }
  return { architecture, labels, problemType, padTokenId: padTokenId as number | undefined };
}

/** The fields of config.json that describe a head. */
export function headFields({ architecture, labels, problemType, padTokenId, dropout = 0.1 }: HuggingFaceHead): Json {
  const pad = padTokenId === undefined ? {} : { pad_token_id: padTokenId };
  if (architecture === "GPT2DoubleHeadsModel") {
    const { summary_last_dropout: _, ...summary } = SUMMARY;
    return { architectures: [architecture], ...summary, summary_first_dropout: dropout, ...pad };
  }
  return {
    architectures: [architecture],
    id2label: Object.fromEntries(labels.map((label, id) => [id, label])),
    label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
    ...(problemType && { problem_type: problemType }),
    ...pad,
  };
}
