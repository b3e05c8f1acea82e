import { where as kernel } from "../../kernels/where/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { commonShape, expand, sumTo } from "./broadcast.ts";

/**
 * Chooses a where the condition is not zero, otherwise b, element by element, with broadcasting, like `torch.where`.
 * The gradient goes to the operand that was chosen.
 *
 * @param condition i32, any shape
 * @param a f32, any shape that broadcasts with condition's and b's
 * @param b f32, any shape that broadcasts with condition's and a's
 * @returns f32, the common shape
 * @throws {ShapeError} when two axes differ and neither is 1
 * @see https://pytorch.org/docs/stable/generated/torch.where.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { where } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const mask = device.tensor([1, 0, 1], [3], { dtype: "i32" });
 * const x = device.tensor([1, 2, 3], [3]), zero = device.tensor([0], []);
 * assertEquals([...await where(mask, x, zero).data()], [1, 0, 3]);
 * device.close();
 * ```
 */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  const shape = commonShape("where", [condition.shape, a.shape, b.shape]);
  const choose = (a: Tensor | undefined, b: Tensor | undefined) => {
    using scope = condition.device.scope("where");
    const [chosen, x, y] = [condition, a, b].map((tensor) => {
      const full = tensor && expand(tensor, shape);
      return full?.alias([full.size]);
    });
    return scope.keep(launch(kernel, { condition: chosen!, a: x, b: y }).y.alias(shape));
  };
  return record("where", choose(a, b), [condition, a, b], [condition], (dy, into) => [
    undefined,
    a.requiresGrad ? sumTo(a, choose(dy, undefined), into[1]) : undefined,
    b.requiresGrad ? sumTo(b, choose(undefined, dy), into[2]) : undefined,
  ]);
}
