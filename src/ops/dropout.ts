import { dropout as dropoutKernel } from "../../kernels/dropout/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Which elements are dropped: a function of these and of an element's place, so backward draws the same mask again. */
export interface DropoutOptions {
  /** The share that is dropped, from 0 to 1. */
  readonly p: number;
  /** 32 bits. */
  readonly seed: number;
  /** Of the training step, 32 bits: a number, or an i32 (1) on the device, which a step can change without other code. */
  readonly offset: Tensor | number;
  /** Which of a step's masks it is, 32 bits: every call its own. */
  readonly stream: number;
}

/**
 * x with a share p of its elements set to zero and the others multiplied by 1 / (1 − p), as
 * `torch.nn.functional.dropout` in training (Srivastava et al. 2014), but with masks from Philox4x32-10.
 *
 * @param x f32, any shape
 * @param options the share, and which mask: seed, offset and stream tell it
 * @returns f32, the shape of x; x itself where p is 0
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

/** What kernels that drop out take: their parameters and, unless p is 0, the offset on the device. */
export function dropoutArguments(op: string, { device, shape }: Tensor, { p, seed, offset, stream }: DropoutOptions) {
  if (!(p >= 0 && p <= 1)) throw new ConfigError(`Cannot apply ${op} to [${shape}]: p is ${p}, expected 0 to 1`);
  const params = { seed, stream, threshold: Math.ceil(p * 2 ** 24), gain: p < 1 ? 1 / (1 - p) : 0 };
  if (p === 0) return { params };
  return { params, offset: typeof offset === "number" ? device.tensor([offset], [1], { dtype: "i32" }) : offset };
}
