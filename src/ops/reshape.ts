import { record } from "../engine/autograd.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import { sizeOf, type Tensor } from "../engine/tensor.ts";

/**
 * Returns the elements of x in another shape, like `torch.reshape`. The result shares x's storage; nothing is copied.
 *
 * @param x f32 or i32, any shape
 * @param shape the new shape; one size may be −1, and is then computed from x's number of elements
 * @returns the dtype of x, in the new shape
 * @throws {ShapeError} when the numbers of elements differ
 * @throws {DeviceError} when x is stored in another dtype, or in panels
 * @see https://pytorch.org/docs/stable/generated/torch.reshape.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { reshape } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
 * assertEquals(reshape(x, [3, -1]).shape, [3, 2]);
 * device.close();
 * ```
 */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const open = shape.indexOf(-1), rest = x.size / sizeOf(shape.filter((size) => size !== -1));
  const actual = shape.map((size, i) => i === open ? rest : size);
  if (sizeOf(actual) !== x.size || actual.some((size) => !Number.isInteger(size) || size < 1)) {
    throw new ShapeError(
      `Cannot apply reshape to [${x.shape}] and [${shape}]: expected sizes whose product is ${x.size}`,
    );
  }
  if (x.dtype !== "f32" && x.dtype !== "i32") {
    throw new DeviceError(`Cannot apply reshape to [${x.shape}]: it is ${x.dtype}, expected f32 or i32`);
  }
  using scope = x.device.scope("reshape");
  if (x.storage.panels) {
    throw new DeviceError(
      `Cannot apply reshape to [${x.shape}]: it is stored in panels, which only linear, embedding and matmul's right side read`,
    );
  }
  return scope.keep(record("reshape", x.alias(actual), [x], [], (dy) => [dy.alias(x.shape)]));
}
