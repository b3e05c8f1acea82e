/**
 * How far a device may be from PyTorch's f64 results: |actual − expected| ≤ atol + rtol · |expected|.
 *
 * One rounding of f32 is at most 6e-8 of the value. Inputs are normally distributed, so a sum of n products of size 1 is
 * about √n and carries roundings of its partial sums: that is atol. generate.py prints how far PyTorch's own f32 kernels
 * are off on the same cases, as a share of 1 + |expected|; it is quoted here. The limits of modules, models and runs are
 * a few times what the CPU device shows.
 *
 * Each golden case of an op says its kind, a row of the table: the one whose roundings are like its own, whatever the op.
 */
import type { Device } from "../../src/engine/device.ts";

export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** The reference device works in f64: only the order of additions may differ. */
export const REFERENCE: Tolerance = { atol: 1e-12, rtol: 1e-12 };

export const tolerances = {
  /** Copies are exact; where a gradient arrives twice, one addition rounds. */
  movement: { atol: 0, rtol: 1.2e-7 },
  /** One to four roundings; gradients of broadcast inputs add up to 300 terms. PyTorch: 6.5e-7. */
  arithmetic: { atol: 2e-6, rtol: 1e-6 },
  /** Polynomials of a few ulp, times the incoming gradient. PyTorch: 1.2e-7. */
  transcendental: { atol: 5e-7, rtol: 1e-6 },
  /** Sums of up to 1200 terms. PyTorch: 4.3e-7. */
  reduction: { atol: 5e-6, rtol: 1e-6 },
  /** Up to 769 products one after another: partial sums of 28, a thousand roundings of 2e-6 at random. PyTorch: 7.7e-6. */
  matmul: { atol: 2e-5, rtol: 2e-6 },
  /** rstd reaches 316 where a row has one element, and multiplies what should cancel. PyTorch: 5.9e-5. */
  layerNorm: { atol: 1e-5, rtol: 2e-6 },
  /** 1 + erf cancels for negative x, which leaves an absolute error of an ulp of 1 times x. PyTorch: 1.2e-6. */
  gelu: { atol: 2e-6, rtol: 1e-6 },
  /** Differences of arguments up to 1000 round before they are exponentiated. PyTorch: 1.9e-7. */
  softmax: { atol: 2e-6, rtol: 2e-6 },
  /** As softmax; the mean over few rows shrinks it. PyTorch: 5.5e-8. */
  crossEntropy: { atol: 1e-6, rtol: 1e-6 },
  /** Two products of up to 130 terms around a softmax, whose scores reach 200. PyTorch: 1.4e-6. */
  attention: { atol: 2e-5, rtol: 1e-5 },

  /** Up to four products of 64 terms, layer norms and a softmax. */
  modules: { atol: 3e-6, rtol: 3e-6 },
  /** A GPT of two layers with weights of 0.2: logits of size 3 behind some 300 roundings. */
  logits: { atol: 5e-6, rtol: 5e-6 },
  /** A mean over rows, whose errors partly cancel. */
  loss: { atol: 1e-6, rtol: 5e-7 },
  /** Of a whole module or model. atol is a share of the tensor's largest element: as large as what has been summed. */
  gradients: { atol: 3e-6, rtol: 3e-6 },
  /** Ten steps of given gradients: a few roundings each. */
  optimizer: { atol: 5e-7, rtol: 1e-6 },
  /** Ten steps of a model. Each moves a weight by up to 5e-3 however small its gradient, so roundings of small ones show. */
  trained: { atol: 1e-6, rtol: 1e-6 },
  /** A sum of squares. */
  norms: { atol: 0, rtol: 2e-6 },
  /** Losses and gradient norms over 51 updates, in which differences of roundings grow. */
  curve: { atol: 5e-6, rtol: 5e-6 },
  /** f32 numbers by the same steps as PyTorch's. */
  initial: { atol: 0, rtol: 0 },
} satisfies Record<string, Tolerance>;

export type Kind = keyof typeof tolerances;

/** The limit on a device; `gradients` takes the expected values, of which atol is a share there. */
export function limitOf(device: Device, kind: Kind, expected: ArrayLike<number> = []): Tolerance {
  const { atol, rtol } = device.name === "reference" ? REFERENCE : tolerances[kind];
  const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { atol: expected.length > 0 ? atol * largest : atol, rtol };
}
