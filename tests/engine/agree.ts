/** Compares the CPU's kernels with the reference device, and results on one thread with results on several threads. */
import { assertEquals } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose, type Limit } from "../testing.ts";

/** Normally distributed numbers, which depend only on the seed. */
export function normal(count: number, seed = 1): Float32Array {
  const out = new Float32Array(count);
  new RandomGenerator(seed).normal(out, 0, 1);
  return out;
}

const reference = new ReferenceDevice();
const cpus = await Promise.all([1, 2, 4].map((threads) => CpuDevice.create({ threads, guards: true })));

/**
 * Throws unless `results` on the CPU is within `limit` of the reference device, has the same bits on 1, 2 and 4
 * threads, and no kernel wrote outside of its storages.
 */
export async function assertAgrees(what: string, limit: Limit, results: (device: Device) => Tensor[]): Promise<void> {
  const run = async (device: Device) => {
    using scope = device.scope();
    const tensors = results(device).map((tensor) => scope.keep(tensor));
    scope[Symbol.dispose]();
    return await Promise.all(tensors.map((tensor) => tensor.data().finally(() => tensor.dispose())));
  };
  const expected = await run(reference), [one, ...more] = await Promise.all(cpus.map(run));
  one.forEach((values, i) => assertClose(values, expected[i], limit, `${what}, result ${i}`));
  for (const others of more) assertEquals(others.map(bits), one.map(bits), `${what}: other bits on more threads`);
}

const bits = ({ buffer }: { readonly buffer: ArrayBufferLike }) => new Int32Array(buffer);

/**
 * An op's output, and the gradient of its input after two backward passes. The second pass tests that kernels add to a
 * gradient.
 */
export function outputAndGradient(device: Device, shape: readonly number[], op: (x: Tensor) => Tensor, scale = 1) {
  const values = normal(shape.reduce((a, b) => a * b, 1)).map((value) => scale * value);
  const x = device.tensor(values, shape, { requiresGrad: true });
  const outputs = [1, 2].map(() => {
    const y = op(x);
    y.backward(device.tensor(normal(y.size, 2), y.shape));
    return y;
  });
  return [outputs[0], x.grad!];
}
