/**
 * Summaries by GPT-2 without fine-tuning (Radford et al. 2019, section 3.6): appends "TL;DR:" to the text, generates
 * 100 tokens with top-k sampling, k = 2, and returns the first three sentences. Options and outputs have the names of
 * the pipeline in transformers up to version 4.57, in camelCase.
 */
import { ConfigError, DataError } from "../errors.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { generateSequences } from "../generate/generate.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Pretrained } from "./load.ts";

/** Appended to a text to ask for a summary. */
const HINT = "\nTL;DR:";

/** Options of a summary, with the defaults of the GPT-2 paper. */
export interface SummarizationOptions
  extends Omit<SequencesOptions, "tokenizer" | "logprobs" | "topLogprobs" | "numReturnSequences" | "maxLength"> {
  /** The most tokens to generate, before the text is cut to sentences. Default 100. Another name for `maxNewTokens`. */
  readonly maxLength?: number;
  /** Whether to sample tokens; false takes the most likely token. Default true. */ readonly doSample?: boolean;
  /** Sample from this many of the most likely tokens. Default 2. */ readonly topK?: number;
  /** Number of sentences. Default 3. */ readonly sentences?: number;
  /** Whether to return the text. Default true. */ readonly returnText?: boolean;
  /** Whether to return all generated tokens. Default false. */ readonly returnTensors?: boolean;
}

/** A summary. */
export interface Summary {
  /** The text. */ readonly summaryText?: string;
  /** Ids of all generated tokens. */ readonly summaryTokenIds?: number[];
}

/** The pipeline that `pipeline("summarization", …)` makes. */
export interface SummarizationPipeline extends Disposable {
  /**
   * A list with the summary of a text. The end of the text is cut if text and summary do not fit into the block size
   * together.
   */
  (text: string, options?: SummarizationOptions): Promise<Summary[]>;
  /** A summary of each text. */
  (texts: readonly string[], options?: SummarizationOptions): Promise<Summary[]>;
  /** The model and its tokenizer. */ readonly loaded: Pretrained;
  /** Frees the model and closes its device, if the pipeline made them. `using` calls it. */ close(): void;
}

/** Makes the pipeline. @param shared the generator to use if no seed is given */
export function summarization(
  loaded: Pretrained,
  { close, shared }: { close: () => void; shared: () => RandomGenerator },
): SummarizationPipeline {
  const { model, tokenizer } = loaded, { blockSize } = model.config;
  async function one(text: string, options: SummarizationOptions): Promise<Summary> {
    const { maxLength, sentences = 3, doSample = true, returnText = true, returnTensors = false, ...rest } = options;
    const { maxNewTokens = maxLength ?? 100, temperature = 1, topK = 2, seed } = rest;
    if (maxLength !== undefined && rest.maxNewTokens !== undefined) {
      throw new ConfigError("maxLength and maxNewTokens are both given; pass one of them");
    }
    if (!(Number.isSafeInteger(sentences) && sentences > 0)) {
      throw new ConfigError(`sentences is ${sentences}; expected a whole number above 0`);
    }
    const hint = encodeHint(tokenizer), ids = tokenizer.encode(text, { disallowedSpecial: new Set() });
    const room = blockSize - hint.length - maxNewTokens;
    if (ids.length === 0) throw new DataError("the text is empty; expected at least one token");
    if (room < 1) {
      throw new ConfigError(
        `a block size of ${blockSize} tokens has no room for a text and a summary of ${maxNewTokens} tokens`,
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

/**
 * Encodes {@linkcode HINT}.
 *
 * @throws {DataError} if the vocabulary cannot encode it, which can happen with characters
 */
function encodeHint(tokenizer: Tokenizer): Int32Array {
  try {
    return tokenizer.encode(HINT);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`Summaries need the prompt "TL;DR:", which the tokenizer cannot encode. ${error.message}`);
  }
}

/**
 * @internal The first `count` sentences of a text. A sentence ends with a full stop, an exclamation mark or a question
 *   mark, and any quotes after it, if a space or the end of the text follows.
 */
export function firstSentences(text: string, count: number): string {
  const ends = [...text.trim().matchAll(/[.!?]+["'”’)]*(?=\s|$)/g)], last = ends[count - 1] ?? undefined;
  return last ? text.trim().slice(0, last.index + last[0].length) : text.trim();
}
