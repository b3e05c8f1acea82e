import { fill } from "../../kernels/fill/kernel.ts";
import type { Device } from "../engine/device.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, type Tensor } from "../engine/tensor.ts";

/** Makes a tensor of zeros, for a gradient that a kernel writes only in part. */
export function zeros(device: Device, shape: readonly number[]): Tensor {
  using scope = device.scope();
  const y = device.empty([sizeOf(shape)]);
  launch(fill, { y }, { value: 0 });
  return scope.keep(y.alias(shape));
}
