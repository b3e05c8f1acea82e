/**
 * Generation of token ids, like nanoGPT's `GPT.generate` and transformers' `generate`. The caller prints the text.
 *
 * The host draws noise in the order of PyTorch's multinomial, so that a seed gives the tokens of nanoGPT and
 * transformers on every device. The device chooses tokens (kernels/choose), and the host reads several tokens at a
 * time. Each text is a {@linkcode Row}.
 *
 * @module
 */
import { needsTables } from "../../kernels/choose/record.ts";
import { checkGeneration } from "./options.ts";
import type { GenerateOptions, SequencesOptions } from "./options.ts";
import type { GPT } from "../gpt.ts";
import { RandomGenerator } from "../random/mod.ts";
import type { Chosen, Row } from "./row.ts";
import { slotBytes } from "./passes.ts";
import { Rows } from "./rows.ts";
import type { Taken } from "./stopping.ts";

export type { GenerateOptions, RowOptions, SequencesOptions } from "./options.ts";
export type { Chosen, PromptToken, Row, RowRequest, RowToken, TokenLogprob } from "./row.ts";
export { Rows, type RowsOptions } from "./rows.ts";
export type { SamplingOptions } from "../../kernels/choose/rules.ts";
export type { FinishReason, StoppingOptions, Taken } from "./stopping.ts";

/** The token ids of a prompt, or of several prompts. */
export type Prompts = ArrayLike<number> | readonly ArrayLike<number>[];

/** The next token of one of the sequences. */
export interface GeneratedToken extends Chosen, Taken {
  /** Number of the sequence, from 0. */
  readonly sequence: number;
}

/**
 * Generates token ids that continue `prompt`, and yields each one when it is drawn. With p = softmax(logits /
 * temperature) over the `topK` most likely tokens, the next token is argmax p / q with exponential noise q, which draws
 * each token with probability p.
 *
 * @param prompt token ids, at least one; if there are more than the block size, the model sees the last ones
 * @throws {ConfigError} if an option is out of range, or the prompt is empty or has an id outside the vocabulary
 * @throws {DataError} if the model's logits are NaN, because its weights are damaged
 * @example
 * ```ts
 * import { createDevice, generate, GPT } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * for await (const token of generate(model, [0], { maxNewTokens: 5, seed: 42 })) console.log(token);
 * device.close();
 * ```
 */
export function generate(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number, void, void>;
/**
 * Generates a text for each of several prompts, and yields the tokens text by text, as separate calls would. Several
 * texts are computed at once if that does not change them: with a `seed`, with temperature 0, or if no text can end
 * early.
 */
export function generate(
  model: GPT,
  prompts: readonly ArrayLike<number>[],
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken, void, void>;
export function generate(
  model: GPT,
  prompt: Prompts,
  options: GenerateOptions,
): AsyncGenerator<number | GeneratedToken, void, void> {
  return decode<number | GeneratedToken>(model, prompt, options, isList(prompt) ? (token) => token : ({ id }) => id);
}

/**
 * Generates several sequences from each prompt, and yields their tokens with texts, log-probabilities and finish
 * reasons. The sequences of a prompt share forward passes; each yields tokens until it ends.
 *
 * @param prompt one prompt, or several: sequences are numbered through all prompts, and yielded prompt by prompt
 * @throws {ConfigError} like {@linkcode generate}
 * @example
 * ```ts
 * import { createDevice, generateSequences, GPT } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * const options = { maxNewTokens: 3, numReturnSequences: 2, topP: 0.9, logprobs: true };
 * for await (const { sequence, id, logprob } of generateSequences(model, [0], options)) console.log(sequence, id, logprob);
 * device.close();
 * ```
 */
export function generateSequences(
  model: GPT,
  prompt: Prompts,
  options: SequencesOptions,
): AsyncGenerator<GeneratedToken, void, void> {
  return decode(model, prompt, options, (token) => token);
}

/** The most texts that are generated together. With more texts, the time for each text would hardly fall. */
const MOST_TOGETHER = 64;
/** If a text draws more random numbers, skipping them takes noticeable time, so later texts do not join all at once. */
const AT_ONCE = 2 ** 20;

/** Generates for one prompt or several. @param give converts a token to the yielded value */
async function* decode<T>(
  model: GPT,
  prompt: Prompts,
  options: SequencesOptions,
  give: (token: GeneratedToken) => T,
): AsyncGenerator<T, void, void> {
  const prompts = (isList(prompt) ? prompt : [prompt]).map((ids) => Array.from(ids)), { vocabSize } = model.config;
  const lengths = prompts.map((ids) => checkGeneration(options, ids, model.config));
  const { numReturnSequences: count = 1, signal, generator, cache, temperature = 1, eosTokenId, stopStrings = [] } =
    options;
  const draws = temperature > 0 && generator !== undefined,
    fixed = eosTokenId === undefined && stopStrings.length === 0;
  const together = prompts.length > 1 && (!draws || fixed);
  const slots = count * (together ? textsTogether(model, prompts.length, options) : 1);
  using rows = new Rows(model, { slots, cache });
  /** For each prompt, its rows: one for each sequence. */
  const texts: Row[][] = [];
  const join = () => {
    const number = texts.length, drawn = lengths[number] * count * vocabSize;
    const own = draws && together ? new RandomGenerator(0) : generator;
    // The text gets a copy of the generator. The generator then skips the random numbers that this text will draw.
    if (draws && together) {
      own!.setState(generator.getState());
      generator.skipExponential(drawn);
    }
    texts.push(rows.addSequences({ ...options, generator: own, prompt: prompts[number] }, count));
    return draws && drawn > AT_ONCE;
  };
  try {
    for (let number = 0; number < prompts.length; number++) {
      if (texts.length === number) join();
      let going = [...texts[number].entries()];
      while (going.length > 0) {
        while (together && texts.length < prompts.length && rows.free >= count) if (join()) break;
        for (const [i, row] of going) {
          const { value } = await row.next();
          if (signal?.aborted) return;
          if (value) yield give({ sequence: number * count + i, ...value });
        }
        going = going.filter(([, { done }]) => !done);
      }
      for (const row of texts[number]) row.abort();
    }
  } finally {
    for (const row of texts.flat()) row.abort();
  }
}

/**
 * How many prompts are generated together: the keys, values and tables of their sequences take at most half of the
 * memory left.
 */
function textsTogether(model: GPT, prompts: number, options: SequencesOptions): number {
  const { device } = model, left = device.capacity.all - device.memory().bytes;
  const { numReturnSequences: count = 1, cache } = options;
  const tables = needsTables(options) ? 2 * model.config.vocabSize * device.bytesOf("f32") : 0;
  const most = Math.min(MOST_TOGETHER, left / 2 / (slotBytes(model, cache).all + tables)) / count;
  return Math.max(1, Math.min(prompts, Math.floor(most)));
}

const isList = (prompt: Prompts): prompt is readonly ArrayLike<number>[] => typeof prompt[0] === "object";
