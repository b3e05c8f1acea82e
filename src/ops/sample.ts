import { sample as sampleKernel } from "../../kernels/sample/kernel.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** How the next tokens are drawn. */
export interface SampleOptions {
  /** Divides the logits, so below 1 likely tokens become likelier; 0 takes the greatest logit. A number, or f32 (B). */
  readonly temperature?: Tensor | number;
  /** How many of the likeliest tokens may be drawn, and those equal to the last of them; default 0: all. A number, or i32 (B). */
  readonly topK?: Tensor | number;
  /** i32 (1): which row of the noise is the first row's; the others' follow, from the end on again from 0. Default 0. */
  readonly first?: Tensor;
}

/**
 * Draws an entry of the vocabulary for each row by softmax(logits / temperature), as nanoGPT's `generate` does: argmax of
 * probability / noise, which is what `torch.multinomial` computes. There is no derivative.
 *
 * @param logits f32 (B, V)
 * @param noise f32 (any number, V), above 0, drawn from the exponential distribution (`RandomGenerator.exponential`)
 * @returns i32 (B); −1 for a row with NaN, or whose maximum is infinite
 * @throws {ShapeError} when noise has not as many columns as logits
 * @throws {ConfigError} when the temperature is negative, or topK no whole number from 0
 */
export function sample(logits: Tensor, noise: Tensor, options: SampleOptions = {}): Tensor {
  const { temperature = 1, topK = 0 } = options, { device, shape: [B] } = logits;
  const refuse = (why: string) => new ConfigError(`Cannot apply sample to [${logits.shape}]: ${why}`);
  if (typeof topK === "number" && (!Number.isInteger(topK) || topK < 0)) {
    throw refuse(`topK is ${topK}, expected a whole number from 0`);
  }
  if (typeof temperature === "number" && !(temperature >= 0)) {
    throw refuse(`temperature is ${temperature}, expected 0 or above`);
  }
  using scope = device.scope("sample");
  const each = (value: Tensor | number, dtype: "f32" | "i32") =>
    typeof value === "number" ? device.tensor(new Array<number>(B).fill(value), [B], { dtype }) : value;
  const first = options.first ?? device.tensor([0], [1], { dtype: "i32" });
  const settings = { first, temperature: each(temperature, "f32"), topK: each(topK, "i32") };
  return scope.keep(launch(sampleKernel, { logits, noise, ...settings }).ids);
}
