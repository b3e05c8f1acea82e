/**
 * Generation over token ids, as nanoGPT's `GPT.generate` and transformers' `generate`: printing is the caller's.
 *
 * The noise is drawn on the host in the order of PyTorch's multinomial, so a seed gives nanoGPT's and transformers' tokens on
 * every device. With temperature and topK alone the device chooses (decoder.ts), and the host reads some tokens at a time; for
 * everything else it reads each token's logits and chooses (chooser.ts).
 */
import type { Chosen } from "./chooser.ts";
import { checkGeneration } from "./options.ts";
import type { GenerateOptions, SequencesOptions } from "./options.ts";
import type { GPT } from "../gpt.ts";
import { Rows } from "./rows.ts";
import type { Taken } from "./stopping.ts";

export type { Chosen, TokenLogprob } from "./chooser.ts";
export type { GenerateOptions, RowOptions, SequencesOptions } from "./options.ts";
export type { SamplingOptions } from "./sampling_rules.ts";
export type { FinishReason, StoppingOptions, Taken } from "./stopping.ts";

/** The next token of one of the sequences. */
export interface GeneratedToken extends Chosen, Taken {
  /** Which of the sequences, from 0. */
  readonly sequence: number;
}

/**
 * Token ids that go on from `prompt`, one at a time as they are drawn: p = softmax(logits / temperature) over the `topK`
 * likeliest, and the next token is argmax p / q with exponential noise q, which draws it with probability p.
 *
 * @param prompt token ids, at least one; where they are more than the block size, the model sees the last ones
 * @throws {ConfigError} when an option is out of range, or the prompt is empty or not of the vocabulary
 * @throws {DataError} when the model's logits are not numbers, because its weights are damaged
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
): AsyncGenerator<number, void, void> {
  return decode(model, prompt, options, ({ id }) => id);
}

/**
 * As {@linkcode generate}, with all that is known of each token, and for several sequences at once: a forward pass serves all
 * of them, and each gives its tokens until it ends.
 *
 * @throws {ConfigError} as {@linkcode generate}
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
  prompt: ArrayLike<number>,
  options: SequencesOptions,
): AsyncGenerator<GeneratedToken, void, void> {
  return decode(model, prompt, options, (token) => token);
}

/** @param give what to yield for a token */
async function* decode<T>(
  model: GPT,
  prompt: ArrayLike<number>,
  options: SequencesOptions,
  give: (token: GeneratedToken) => T,
): AsyncGenerator<T, void, void> {
  checkGeneration(options, Array.from(prompt), model.config);
  const { numReturnSequences: count = 1, signal } = options;
  using rows = new Rows(model, { slots: count });
  const sequences = rows.addSequences({ ...options, prompt }, count);
  try {
    for (let going = [...sequences.entries()]; going.length > 0; going = going.filter(([, { done }]) => !done)) {
      for (const [sequence, row] of going) {
        const { value } = await row.next();
        if (signal?.aborted) return;
        if (value) yield give({ sequence, ...value });
      }
    }
  } finally {
    for (const row of sequences) row.abort();
  }
}
