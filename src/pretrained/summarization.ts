/**
 * Summaries as GPT-2 writes them without having learned to (Radford et al. 2019, section 3.6): "TL;DR:" after the text, 100 tokens
 * of the two likeliest each, and of these the first three sentences. Options and outputs are those of the pipeline that transformers
 * had up to version 4.57, in camelCase.
 */
import { ConfigError, DataError } from "../errors.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { generateSequences } from "../generate/generate.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Pretrained } from "./load.ts";

/** What is written after a text. */
const HINT = "\nTL;DR:";

/** How a summary is written; defaults are GPT-2's. */
export interface SummarizationOptions
  extends Omit<SequencesOptions, "tokenizer" | "logprobs" | "topLogprobs" | "numReturnSequences" | "maxLength"> {
  /** Tokens of a summary at most, before sentences are counted: 100. `maxNewTokens` says the same. */
  readonly maxLength?: number;
  /** Whether tokens are drawn; false takes the likeliest. Default true. */ readonly doSample?: boolean;
  /** Of the likeliest tokens, how many are drawn from: 2. */ readonly topK?: number;
  /** Sentences of a summary: 3. */ readonly sentences?: number;
  /** Whether to give the text: true. */ readonly returnText?: boolean;
  /** Whether to give the tokens, all that were written: false. */ readonly returnTensors?: boolean;
}

/** A summary. */
export interface Summary {
  /** Its text. */ readonly summaryText?: string;
  /** The tokens that were written. */ readonly summaryTokenIds?: number[];
}

/** What `pipeline("summarization", …)` gives. */
export interface SummarizationPipeline extends Disposable {
  /** The summary of a text, in a list. A text that does not fit beside it into the block size loses its end. */
  (text: string, options?: SummarizationOptions): Promise<Summary[]>;
  /** One of each text. */
  (texts: readonly string[], options?: SummarizationOptions): Promise<Summary[]>;
  /** The model and its tokenizer. */ readonly loaded: Pretrained;
  /** Frees the model and closes its device, where the pipeline has made them: `using` calls it. */ close(): void;
}

/** @param shared draws where no seed is given */
export function summarization(
  loaded: Pretrained,
  { close, shared }: { close: () => void; shared: () => RandomGenerator },
): SummarizationPipeline {
  const { model, tokenizer } = loaded, { blockSize } = model.config;
  async function one(text: string, options: SummarizationOptions): Promise<Summary> {
    const { maxLength, sentences = 3, doSample = true, returnText = true, returnTensors = false, ...rest } = options;
    const { maxNewTokens = maxLength ?? 100, temperature = 1, topK = 2, seed } = rest;
    if (maxLength !== undefined && rest.maxNewTokens !== undefined) {
      throw new ConfigError("maxLength and maxNewTokens are both given; one is enough");
    }
    if (!(Number.isSafeInteger(sentences) && sentences > 0)) {
      throw new ConfigError(`sentences is ${sentences}; expected a whole number above 0`);
    }
    const hint = encodeHint(tokenizer), ids = tokenizer.encode(text, { disallowedSpecial: new Set() });
    const room = blockSize - hint.length - maxNewTokens;
    if (ids.length === 0) throw new DataError("the text has no token, and so no summary");
    if (room < 1) {
      throw new ConfigError(
        `a block size of ${blockSize} tokens has no room for a text beside ${maxNewTokens} tokens of summary`,
      );
    }
    const prompt = [...ids.subarray(0, room), ...hint],
      generator = rest.generator ?? (seed === undefined ? shared() : undefined);
    const how = { ...rest, maxNewTokens, topK, temperature: doSample ? temperature : 0, generator, tokenizer };
    const written: number[] = [];
    let summary = "";
    for await (const { id, text } of generateSequences(model, [prompt], how)) {
      written.push(id);
      summary += text ?? "";
    }
    return {
      ...(returnText && { summaryText: firstSentences(summary, sentences) }),
      ...(returnTensors && { summaryTokenIds: written }),
    };
  }
  async function summarize(given: string | readonly string[], options: SummarizationOptions = {}): Promise<Summary[]> {
    const summaries: Summary[] = [];
    for (const text of typeof given === "string" ? [given] : given) summaries.push(await one(text, options));
    return summaries;
  }
  return Object.assign(summarize as SummarizationPipeline, { loaded, close, [Symbol.dispose]: close });
}

/** @throws {DataError} where a vocabulary, as one of characters may, cannot write it */
function encodeHint(tokenizer: Tokenizer): Int32Array {
  try {
    return tokenizer.encode(HINT);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`Summaries are asked for with "TL;DR:", which this model cannot read. ${error.message}`);
  }
}

/** @internal The first sentences of a text: one ends at a full stop, an exclamation or a question mark, with quotes after it, before a space or the end. */
export function firstSentences(text: string, count: number): string {
  const ends = [...text.trim().matchAll(/[.!?]+["'”’)]*(?=\s|$)/g)], last = ends[count - 1] ?? undefined;
  return last ? text.trim().slice(0, last.index + last[0].length) : text.trim();
}
