/**
 * Limits for the distance between a device's results and PyTorch's f64 results: |actual − expected| ≤ atol + rtol ·
 * |expected|.
 *
 * One rounding in f32 changes a value by at most 6e-8 of it. Inputs are normally distributed, so a sum of n products of
 * size 1 has a size of about √n and contains the rounding errors of its partial sums: this is atol. generate.py prints
 * the error of PyTorch's own f32 kernels on these cases, as a share of 1 + |expected|. It is quoted below as "PyTorch".
 * The limits of modules, models and runs are a few times the error of the CPU device.
 *
 * Each golden case of an op names its kind, a row of this table. The kind depends on how the op's rounding errors
 * arise.
 */
import type { Device } from "../../src/engine/device.ts";

export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** The reference device works in f64: only the order of additions differs. */
export const REFERENCE: Tolerance = { atol: 1e-12, rtol: 1e-12 };

export const tolerances = {
  /** Copies are exact; if two gradients of an element are added, that addition rounds. */
  movement: { atol: 0, rtol: 1.2e-7 },
  /** One to four roundings; gradients of broadcast inputs add up to 300 terms. PyTorch: 6.5e-7. */
  arithmetic: { atol: 2e-6, rtol: 1e-6 },
  /** Polynomials of a few ulp, times the incoming gradient. PyTorch: 1.2e-7. */
  transcendental: { atol: 5e-7, rtol: 1e-6 },
  /** Sums of up to 1200 terms. PyTorch: 4.3e-7. */
  reduction: { atol: 5e-6, rtol: 1e-6 },
  /** Sums of up to 769 products: partial sums of size 28, a thousand random roundings of 2e-6. PyTorch: 7.7e-6. */
  matmul: { atol: 2e-5, rtol: 2e-6 },
  /** rstd reaches 316 for rows of one element, and multiplies terms that should cancel. PyTorch: 5.9e-5. */
  layerNorm: { atol: 1e-5, rtol: 2e-6 },
  /** 1 + erf cancels for negative x, which leaves an absolute error of one ulp of 1, times x. PyTorch: 1.2e-6. */
  gelu: { atol: 2e-6, rtol: 1e-6 },
  /** Differences of arguments up to 1000 round before they are exponentiated. PyTorch: 1.9e-7. */
  softmax: { atol: 2e-6, rtol: 2e-6 },
  /** As softmax; the mean over a few rows reduces the error. PyTorch: 5.5e-8. */
  crossEntropy: { atol: 1e-6, rtol: 1e-6 },
  /** Two products of up to 130 terms around a softmax, whose scores reach 200. PyTorch: 1.4e-6. */
  attention: { atol: 2e-5, rtol: 1e-5 },

  /** Up to four products of 64 terms, layer norms and a softmax. */
  modules: { atol: 3e-6, rtol: 3e-6 },
  /** A GPT of two layers with weights of 0.2: logits of size 3 after about 300 roundings. */
  logits: { atol: 5e-6, rtol: 5e-6 },
  /** A mean over rows, whose errors cancel in part. */
  loss: { atol: 1e-6, rtol: 5e-7 },
  /**
   * Gradients of a module or model. atol is a share of the tensor's largest element, because errors grow with what is
   * summed.
   */
  gradients: { atol: 3e-6, rtol: 3e-6 },
  /** Ten steps with the fixture's gradients: a few roundings each. */
  optimizer: { atol: 5e-7, rtol: 1e-6 },
  /**
   * Ten steps of a model. A step moves each weight by up to 5e-3 even if its gradient is tiny and mostly rounding
   * error.
   */
  trained: { atol: 1e-6, rtol: 1e-6 },
  /** A sum of squares. */
  norms: { atol: 0, rtol: 2e-6 },
  /** Losses and gradient norms over 51 updates, in which rounding differences grow. */
  curve: { atol: 5e-6, rtol: 5e-6 },
  /** f32 numbers computed in the same steps as in PyTorch. */
  initial: { atol: 0, rtol: 0 },
} satisfies Record<string, Tolerance>;

export type Kind = keyof typeof tolerances;

/** The limits of a device for a kind. For `gradients`, atol is a share of the largest of the expected values. */
export function limitOf(device: Device, kind: Kind, expected: ArrayLike<number> = []): Tolerance {
  const { atol, rtol } = device.name === "reference" ? REFERENCE : tolerances[kind];
  const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { atol: expected.length > 0 ? atol * largest : atol, rtol };
}
