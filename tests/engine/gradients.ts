/** Gradients by finite differences on the reference device, whose f64 leaves them eight digits. */
import { ReferenceDevice } from "../../src/device/reference.ts";
import type { Device } from "../../src/device/device.ts";
import { noGrad } from "../../src/autograd.ts";
import type { Tensor } from "../../src/tensor.ts";
import { Generator } from "../../src/random.ts";
import { assertClose } from "../testing.ts";

/** Normally distributed numbers, the same each time. */
export function normal(count: number, seed = 1): Float32Array {
  const out = new Float32Array(count);
  new Generator(seed).normal(out, 0, 1);
  return out;
}

/**
 * Throws unless backward's gradient of Σ weights · f(x), for random weights, is what central differences give:
 * (f(x + h) − f(x − h)) / 2h, whose error is h² f‴ / 6 and 1e-16 f / h, so with h = 1e-5 about 1e-10 for f near 1.
 */
export async function assertGradient(
  shape: readonly number[],
  f: (x: Tensor, device: Device) => Tensor,
  { x = normal(shape.reduce((a, b) => a * b, 1)) as ArrayLike<number>, what = `[${shape}]` } = {},
): Promise<void> {
  const device = new ReferenceDevice(), h = 1e-5;
  const leaf = device.tensor(x, shape, { requiresGrad: true }), y = f(leaf, device), weights = normal(y.size, 2);
  y.backward(device.tensor(weights, y.shape));
  const value = async (i: number, step: number) => {
    const moved = Float64Array.from(x);
    moved[i] += step;
    const values = await noGrad(() => f(device.tensor(moved, shape), device)).data();
    return Array.from(values).reduce((sum, element, at) => sum + element * weights[at], 0);
  };
  const expected = [];
  for (let i = 0; i < leaf.size; i++) expected.push((await value(i, h) - await value(i, -h)) / (2 * h));
  assertClose(await leaf.grad!.data(), expected, { atol: 1e-8, rtol: 1e-8 }, `${what}, gradient`);
}
