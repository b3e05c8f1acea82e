/** Text classification: transformers' pipeline `text-classification`, with its options and outputs in camelCase. */
import { ConfigError, DataError } from "../errors.ts";
import { headScores } from "../finetune/head_passes.ts";
import { HeadRows } from "../finetune/head_rows.ts";
import { inputsOf } from "../finetune/inputs.ts";
import type { NumberArray } from "../kernel.ts";
import type { PretrainedHead } from "./load_head.ts";

/** Two texts that are classified together. */
export interface TextPair {
  /** The first text. */ readonly text: string;
  /** The second text. */ readonly textPair?: string;
}

/** Options of text classification. */
export interface ClassificationOptions {
  /**
   * How many labels to return for a text, in descending order of score; null returns all. Default: one label, not in a
   * list.
   */
  readonly topK?: number | null;
  /**
   * The function that turns the head's outputs into scores. Default: `none` for a regression; `sigmoid` if a text can
   * have several labels, or if there is one label; otherwise `softmax`.
   */
  readonly functionToApply?: "sigmoid" | "softmax" | "none";
  /** Whether to cut the end of a text that is longer than the block size. Default false: such a text is an error. */
  readonly truncation?: boolean;
  /** Texts in a forward pass. Default 16. */
  readonly batchSize?: number;
}

/** A label with its score. */
export interface ClassifiedText {
  /** The label's name. */ readonly label: string;
  /** A probability, unless `functionToApply` is `none`. */ readonly score: number;
}

/** The pipeline that `pipeline("text-classification", …)` makes. */
export interface TextClassificationPipeline extends Disposable {
  /** A list of labels of a text: one label, or `topK`. */
  (text: string, options?: ClassificationOptions): Promise<ClassifiedText[]>;
  /** A list of `topK` labels for each of several texts or pairs. */
  (
    texts: readonly (string | TextPair)[],
    options: ClassificationOptions & { readonly topK: number | null },
  ): Promise<ClassifiedText[][]>;
  /** The label of each of several texts or pairs. */
  (texts: readonly (string | TextPair)[], options?: ClassificationOptions): Promise<ClassifiedText[]>;
  /** A list of labels of a pair. */
  (pair: TextPair, options: ClassificationOptions & { readonly topK: number | null }): Promise<ClassifiedText[]>;
  /** The label of a pair. */
  (pair: TextPair, options?: ClassificationOptions): Promise<ClassifiedText>;
  /** The model, its head and its tokenizer. */ readonly loaded: PretrainedHead;
  /** Frees the model and closes its device, if the pipeline made them. `using` calls it. */ close(): void;
}

type Given = string | TextPair | readonly (string | TextPair)[];
type Result = ClassifiedText | ClassifiedText[] | ClassifiedText[][];

/** Makes the pipeline. @throws {ConfigError} if the head is for choices */
export function textClassification(loaded: PretrainedHead, close: () => void): TextClassificationPipeline {
  const { kind } = loaded.description;
  if (kind === "choose") {
    throw new ConfigError("The head is for choices and has no labels; headScores returns a score for each choice");
  }
  async function classify(given: Given, options: ClassificationOptions = {}): Promise<Result> {
    const { topK } = options, several = Array.isArray(given), texts = several ? given : [given];
    if (topK !== undefined && topK !== null && !(Number.isSafeInteger(topK) && topK > 0)) {
      throw new ConfigError(`topK is ${topK}; expected a whole number above 0, or null for all`);
    }
    const found = (await scoresOf(loaded, texts, options)).map((scores) => labelled(scores, loaded, options));
    if (topK === undefined) {
      const best = found.map((all) => all.reduce((best, one) => one.score > best.score ? one : best));
      return several || typeof given === "string" ? best : best[0];
    }
    const top = found.map((all) => all.sort((a, b) => b.score - a.score).slice(0, topK ?? undefined));
    return several ? top : top[0];
  }
  return Object.assign(classify as unknown as TextClassificationPipeline, { loaded, close, [Symbol.dispose]: close });
}

async function scoresOf(
  { model, head, tokenizer, description }: PretrainedHead,
  texts: readonly (string | TextPair)[],
  { truncation = false, batchSize }: ClassificationOptions,
): Promise<NumberArray[]> {
  const rows = new HeadRows(), { blockSize: maxLength } = model.config, { kind, tokens } = description;
  for (const [i, given] of texts.entries()) {
    const where = texts.length > 1 ? `text ${i}` : "the text",
      fits = typeof given === "string" || typeof given?.text === "string";
    if (!fits) {
      throw new DataError(
        `${where} is ${given === null ? "null" : typeof given}; expected a text, or { text, textPair }`,
      );
    }
    const { text, textPair } = typeof given === "string" ? { text: given } as TextPair : given;
    const row = { kind: "label" as const, where, text, pair: textPair };
    const { sequences, cut } = inputsOf(row, { kind, tokenizer, maxLength, tokens });
    if (cut && !truncation) {
      throw new DataError(
        `${where} is longer than the model's block size of ${maxLength} tokens; { truncation: true } cuts its end`,
      );
    }
    rows.add(sequences, { where, label: 0 });
  }
  return rows.length > 0 ? await headScores(model, head, { description, rows, batchSize }) : [];
}

function labelled(
  scores: NumberArray,
  { description }: PretrainedHead,
  { functionToApply }: ClassificationOptions,
): ClassifiedText[] {
  const { problemType, labels } = description;
  const apply = functionToApply ??
    (problemType === "regression"
      ? "none"
      : problemType === "multi_label_classification" || labels.length === 1
      ? "sigmoid"
      : "softmax");
  const most = Math.max(...scores), sum = Array.from(scores).reduce((sum, score) => sum + Math.exp(score - most), 0);
  const of = {
    none: (score: number) => score,
    sigmoid: (score: number) => 1 / (1 + Math.exp(-score)),
    softmax: (score: number) => Math.exp(score - most) / sum,
  }[apply];
  if (!of) throw new ConfigError(`functionToApply is ${apply}; expected sigmoid, softmax or none`);
  return labels.map((label, id) => ({ label, score: of(scores[id]) }));
}
