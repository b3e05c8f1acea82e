/**
 * Generation over token ids, as nanoGPT's `GPT.generate`: text, printing and stopping at words are the caller's.
 *
 * The noise is drawn on the host in the order of PyTorch's multinomial, so a seed gives nanoGPT's tokens on every device. What
 * happens there is decoder.ts's.
 */
import { Breather } from "./breather.ts";
import { Decoder } from "./decoder.ts";
import { ConfigError } from "./errors.ts";
import type { GPT } from "./gpt.ts";
import { Generator } from "./random.ts";

export interface GenerateOptions {
  /** How many tokens to add. */
  readonly maxNewTokens: number;
  /** Divides the logits: 1 is the model's own distribution, less is more cautious, 0 takes the likeliest. Default 1. */
  readonly temperature?: number;
  /** Only the likeliest so many are drawn from. Default: all. */
  readonly topK?: number;
  /** Default 1337. */
  readonly seed?: number;
  /** Draws the noise instead of one made from `seed`: for several samples, one after the other, as nanoGPT draws them. */
  readonly generator?: Generator;
  /** Ends the generation before the next token. */
  readonly signal?: AbortSignal;
}

/**
 * Token ids that go on from `prompt`, one at a time as they are drawn: p = softmax(logits / temperature) over the `topK`
 * likeliest, and the next token is argmax p / q with exponential noise q, which draws it with probability p.
 *
 * @param prompt token ids, at least one; where they are more than the block size, the model sees the last ones
 * @throws {ConfigError} when an option is out of range, or the prompt is empty or not of the vocabulary
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
export async function* generate(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number, void, void> {
  const { maxNewTokens, seed = 1337, generator = new Generator(seed), signal } = options, tokens = Array.from(prompt);
  check(options, tokens, model.config.vocabSize);
  using decoder = new Decoder(model, tokens, { ...options, generator });
  const breather = new Breather();
  let left = maxNewTokens;
  try {
    while (left > 0 && !signal?.aborted) {
      for (const token of await decoder.next(left)) {
        if (signal?.aborted) return;
        left--;
        decoder.taken++;
        yield token;
      }
      await breather.breathe();
    }
  } finally {
    decoder.putBack();
  }
}

function check({ maxNewTokens, temperature = 1, topK }: GenerateOptions, prompt: number[], vocabSize: number): void {
  const refuse = (what: string) => {
    throw new ConfigError(what);
  };
  const isCount = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;
  if (!isCount(maxNewTokens, 0)) refuse(`maxNewTokens is ${maxNewTokens}; expected a whole number, 0 or more`);
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    refuse(`temperature is ${temperature}; expected a number, 0 or more`);
  }
  if (topK !== undefined && !isCount(topK, 1)) refuse(`topK is ${topK}; expected a whole number above 0`);
  if (prompt.length === 0) refuse("the prompt is empty; the model needs a token to go on from");
  const stray = prompt.find((id) => !isCount(id, 0) || id >= vocabSize);
  if (stray !== undefined) refuse(`the prompt has token ${stray}, and the vocabulary ends at ${vocabSize - 1}`);
}
