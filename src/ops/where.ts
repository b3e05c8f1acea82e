import { where as kernel } from "../../kernels/where/kernel.ts";
import { record } from "../autograd.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";
import { commonShape, expand, sumTo } from "./broadcast.ts";

/**
 * a where the condition is not zero, else b; all three broadcast.
 *
 * @param condition i32
 * @throws {ShapeError} when two axes differ and neither is 1
 */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  const shape = commonShape("where", [condition.shape, a.shape, b.shape]);
  const choose = (a: Tensor | undefined, b: Tensor | undefined) => {
    using scope = condition.device.scope();
    const [chosen, x, y] = [condition, a, b].map((tensor) => {
      const full = tensor && expand(tensor, shape);
      return full?.view([full.size]);
    });
    return scope.keep(launch(kernel, { condition: chosen!, a: x, b: y }).y.view(shape));
  };
  return record("where", choose(a, b), [condition, a, b], [condition], (dy, into) => [
    undefined,
    a.requiresGrad ? sumTo(a, choose(dy, undefined), into[1]) : undefined,
    b.requiresGrad ? sumTo(b, choose(undefined, dy), into[2]) : undefined,
  ]);
}
