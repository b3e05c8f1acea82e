import { sample as sampleKernel } from "../../kernels/sample/kernel.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** How the next token is drawn. */
export interface SampleOptions {
  /** Divides the logits, so below 1 likely tokens become likelier; 0 takes the greatest logit. f32 (1), or a number. */
  readonly temperature?: Tensor | number;
  /** How many of the likeliest tokens may be drawn, and those equal to the last of them; default 0: all. */
  readonly topK?: number;
}

/**
 * Draws an entry of the vocabulary by softmax(logits / temperature), as nanoGPT's `generate` does: argmax of
 * probability / noise, which is what `torch.multinomial` computes. There is no derivative.
 *
 * @param logits f32 (B, V)
 * @param noise f32 (B, V), above 0, drawn from the exponential distribution (`RandomGenerator.exponential`)
 * @returns i32 (B); −1 for a row with NaN, or whose maximum is infinite
 * @throws {ShapeError} when noise has not the shape of logits
 * @throws {ConfigError} when the temperature is negative, or topK no whole number from 0
 */
export function sample(logits: Tensor, noise: Tensor, { temperature = 1, topK = 0 }: SampleOptions = {}): Tensor {
  if (!Number.isInteger(topK) || topK < 0) {
    throw new ConfigError(`Cannot apply sample to [${logits.shape}]: topK is ${topK}, expected a whole number from 0`);
  }
  if (typeof temperature === "number" && !(temperature >= 0)) {
    throw new ConfigError(
      `Cannot apply sample to [${logits.shape}]: temperature is ${temperature}, expected 0 or above`,
    );
  }
  using scope = logits.device.scope("sample");
  const settings = typeof temperature === "number" ? logits.device.tensor([temperature], [1]) : temperature;
  return scope.keep(launch(sampleKernel, { logits, noise, temperature: settings }, { topK }).ids);
}
