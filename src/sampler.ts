/**
 * Generation over token ids, as nanoGPT's `GPT.generate`: text, printing and stopping at words are the caller's.
 *
 * The noise is drawn on the host in the order of PyTorch's multinomial, so a seed gives nanoGPT's tokens on every device. Up
 * to the block size a key-value cache makes a token cost one token's work; beyond it the window slides as nanoGPT's does, and
 * every token costs a whole forward pass, because each position in the window has changed.
 */
import { noGrad } from "./autograd.ts";
import { Breather } from "./breather.ts";
import { ConfigError } from "./errors.ts";
import type { GPT } from "./gpt.ts";
import type { KeyValueCache } from "./nn/cache.ts";
import { sample } from "./ops/sample.ts";
import { Generator } from "./random.ts";
import type { Tensor } from "./tensor.ts";

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
  const { maxNewTokens, temperature = 1, topK, seed = 1337, generator = new Generator(seed), signal } = options;
  const { blockSize, vocabSize } = model.config, tokens = Array.from(prompt);
  check(options, tokens, vocabSize);
  const noise = new Float32Array(vocabSize).fill(1);
  const cache = tokens.length <= blockSize ? model.createCache() : undefined, breather = new Breather();
  try {
    for (let i = 0; i < maxNewTokens && !signal?.aborted; i++) {
      if (temperature > 0) generator.exponential(noise);
      const next = step(model, tokens, noise, { cache, temperature, topK });
      const [token] = await next.data();
      next.dispose();
      tokens.push(token);
      yield token;
      await breather.breathe();
    }
  } finally {
    cache?.dispose();
  }
}

/** The next token, still on the device: i32 (1). */
function step(
  model: GPT,
  tokens: readonly number[],
  noise: Float32Array,
  { cache, temperature, topK }: { cache?: KeyValueCache; temperature: number; topK?: number },
): Tensor {
  const { device, training, config: { blockSize, vocabSize } } = model;
  using scope = device.scope();
  const fits = cache && tokens.length <= blockSize;
  const seen = fits ? tokens.slice(cache.length) : tokens.slice(-blockSize);
  const ids = device.tensor(seen, [1, seen.length], { dtype: "i32" });
  if (training) model.eval();
  const { logits } = noGrad(() => model.forward(ids, undefined, fits ? { cache } : {})); // (1, 1, V)
  if (training) model.train();
  const drawn = device.tensor(noise, [1, vocabSize]);
  return scope.keep(sample(logits.view([1, vocabSize]), drawn, { temperature, topK }));
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
