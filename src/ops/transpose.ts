import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf } from "./axes.ts";
import { permuted } from "./permute.ts";

/**
 * Copies x with two axes exchanged. Like `torch.transpose`, except that PyTorch returns a view.
 *
 * @param x f32 or i32, any shape
 * @param axes the two axes; negative: counted from the end
 * @returns the dtype of x, its shape with the two sizes exchanged
 * @throws {ShapeError} when there is no such axis
 * @see https://pytorch.org/docs/stable/generated/torch.transpose.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { transpose } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
 * assertEquals([...await transpose(x, [0, 1]).data()], [1, 4, 2, 5, 3, 6]);
 * device.close();
 * ```
 */
export function transpose(x: Tensor, axes: readonly [number, number]): Tensor {
  const [first, second] = axes.map((axis) => axisOf("transpose", x.shape, axis));
  const order = x.shape.map((_, axis) => axis === first ? second : axis === second ? first : axis);
  return record("transpose", permuted("transpose", x, order), [x], [], (dy) => [permuted("transpose", dy, order)]);
}
