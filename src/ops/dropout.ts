import { dropout as dropoutKernel } from "../../kernels/dropout/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * Which elements are dropped. An element's mask is a function of these numbers and of the element's index, which lets
 * backward compute the same mask again.
 */
export interface DropoutOptions {
  /** Probability of dropping an element, from 0 to 1. */
  readonly p: number;
  /** Seed, 32 bits. */
  readonly seed: number;
  /**
   * Number of the training step, 32 bits. A captured program needs it as an i32 (1) on the device, which can change
   * between replays.
   */
  readonly offset: Tensor | number;
  /** Number of the dropout within the step, 32 bits: each call needs its own. */
  readonly stream: number;
}

/**
 * Sets each element of x to zero with probability p and multiplies the remaining ones by 1 / (1 − p), like
 * `torch.nn.functional.dropout` in training (Srivastava et al. 2014). The masks come from Philox4x32-10.
 *
 * @param x f32, any shape
 * @param options the probability p, and the seed, offset and stream that select the mask
 * @returns f32, the shape of x; x itself if p is 0
 * @throws {ConfigError} when p is not from 0 to 1
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { dropout } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor(new Float32Array(1000).fill(1), [1000]), mask = { p: 0.5, seed: 1, offset: 0, stream: 0 };
 * const y = await dropout(x, mask).data();
 * assertEquals(new Set(y), new Set([0, 2]));
 * assertEquals(await dropout(x, mask).data(), y); // the same mask again
 * device.close();
 * ```
 */
export function dropout(x: Tensor, options: DropoutOptions): Tensor {
  using scope = x.device.scope("dropout");
  const { offset, params } = dropoutArguments("dropout", x, options);
  if (!offset) return x;
  const n = [x.size];
  const mask = (x: Tensor) => launch(dropoutKernel, { x: x.alias(n), offset }, params).y.alias(x.shape);
  return scope.keep(record("dropout", mask(x), [x], [offset], (dout) => [mask(dout)]));
}

/** Converts the options to the arguments of a kernel with dropout. Without `offset` (if p is 0), nothing is dropped. */
export function dropoutArguments(op: string, { device, shape }: Tensor, { p, seed, offset, stream }: DropoutOptions) {
  if (!(p >= 0 && p <= 1)) throw new ConfigError(`Cannot apply ${op} to [${shape}]: p is ${p}, expected 0 to 1`);
  const params = { seed, stream, threshold: Math.ceil(p * 2 ** 24), gain: p < 1 ? 1 / (1 - p) : 0 };
  if (p === 0) return { params };
  return { params, offset: typeof offset === "number" ? device.tensor([offset], [1], { dtype: "i32" }) : offset };
}
