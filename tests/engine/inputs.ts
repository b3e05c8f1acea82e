/** An op's result and gradients, from inputs that are described by their shapes. */
import type { Device } from "../../src/engine/device.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";
import type { Limit } from "../testing.ts";
import { assertAgrees, normal } from "./agree.ts";

/** An input: integers, or floats, which are drawn from the normal distribution if no values are given. */
export interface Input {
  readonly shape: readonly number[];
  readonly values?: ArrayLike<number>;
  readonly dtype?: "i32";
}
type Op = (...tensors: Tensor[]) => Tensor;

const make = (device: Device, inputs: readonly Input[], requiresGrad: boolean) =>
  inputs.map(({ shape, values, dtype }, i) =>
    device.tensor(values ?? normal(sizeOf(shape), i + 1), shape, { dtype, requiresGrad: requiresGrad && !dtype })
  );

/** The gradients of `inputs` after two backward passes. The second pass tests that kernels add to a gradient. */
function gradients(device: Device, inputs: readonly Input[], op: Op): Tensor[] {
  const tensors = make(device, inputs, true);
  for (let pass = 0; pass < 2; pass++) {
    const y = op(...tensors);
    y.backward(device.tensor(normal(y.size, 9), y.shape));
  }
  return tensors.flatMap(({ grad }) => grad ?? []);
}

/**
 * Calls {@linkcode assertAgrees} for an op's result, with the limit `forward`, and for its gradients, with the limit
 * `backward`.
 */
export async function assertOpAgrees(
  what: string,
  inputs: readonly Input[],
  op: Op,
  { forward, backward }: { forward: Limit; backward: Limit },
): Promise<void> {
  await assertAgrees(what, forward, (device) => [op(...make(device, inputs, false))]);
  await assertAgrees(`${what}, gradients`, backward, (device) => gradients(device, inputs, op));
}
