import { record } from "../autograd.ts";
import { ShapeError } from "../errors.ts";
import { sizeOf, type Tensor } from "../tensor.ts";

/**
 * The same elements in another shape; they are shared, not copied.
 *
 * @param shape one size may be -1: what is left for it
 * @throws {ShapeError} when the numbers of elements differ
 */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const open = shape.indexOf(-1), rest = x.size / sizeOf(shape.filter((size) => size !== -1));
  const actual = shape.map((size, i) => i === open ? rest : size);
  if (sizeOf(actual) !== x.size || actual.some((size) => !Number.isInteger(size) || size < 1)) {
    throw new ShapeError(`Cannot apply reshape to [${x.shape}] and [${shape}]`);
  }
  return record("reshape", x.view(actual), [x], [], (dy) => [dy.view(x.shape)]);
}
