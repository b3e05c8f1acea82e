/** Broadcasting as in PyTorch: shapes are aligned at the last axis, and an axis of size 1 is repeated. */
import type { BinaryKernel } from "../../kernels/binary/kernel.ts";
import { sum } from "../../kernels/reduce/kernel.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, type Tensor } from "../engine/tensor.ts";
import { stridesOf } from "./axes.ts";
import { copyStrided } from "./strided.ts";

/** The shape that all shapes broadcast to. @throws {ShapeError} when two sizes of an axis differ and neither is 1 */
export function commonShape(op: string, shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape.at(axis - rank) ?? 1).filter((size) => size !== 1);
    const other = sizes.find((size) => size !== sizes[0]);
    if (other !== undefined) {
      const given = shapes.map((shape) => `[${shape}]`).join(" and ");
      throw new ShapeError(`Cannot apply ${op} to ${given}: sizes ${sizes[0]} and ${other} differ, and neither is 1`);
    }
    return sizes[0] ?? 1;
  });
}

/** x repeated to `shape`: a copy, or x itself if nothing has to be repeated. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  if (x.size === sizeOf(shape)) return x;
  const missing = shape.length - x.shape.length, strides = stridesOf(x.shape);
  return copyStrided(
    "expand",
    x,
    shape,
    shape.map((_, i) => (x.shape[i - missing] ?? 1) === 1 ? 0 : strides[i - missing]),
  );
}

/**
 * Merges neighbouring axes of `shape` that each of `shapes` either has in full or repeats; axes of size 1 are left out.
 */
function mergeAxes(shape: readonly number[], shapes: readonly (readonly number[])[]) {
  const groups: { size: number; repeats: string; sizes: number[] }[] = [];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const sizes = shapes.map((of) => of.at(axis - shape.length) ?? 1), repeats = `${sizes.map((n) => n === 1)}`;
    const last = groups.at(-1);
    if (last?.repeats === repeats) {
      last.size *= size;
      last.sizes = last.sizes.map((n, i) => n * sizes[i]);
    } else groups.push({ size, repeats, sizes });
  });
  return groups;
}

/** Computes y = kernel(a, b), with broadcasting; does not record. */
export function binary(kernel: BinaryKernel, a: Tensor, b: Tensor): Tensor {
  const shape = commonShape(kernel.name, [a.shape, b.shape]);
  using scope = a.device.scope(kernel.name);
  const groups = mergeAxes(shape, [a.shape, b.shape]);
  if (groups.length > 2) return scope.keep(binary(kernel, expand(a, shape), expand(b, shape)));
  const y = a.device.empty(shape);
  while (groups.length < 2) groups.unshift({ size: 1, repeats: "", sizes: [1, 1] });
  const [as, bs] = [0, 1].map((i) => groups.map(({ sizes }) => sizes[i]));
  launch(kernel, { a: a.alias(as), b: b.alias(bs), y: y.alias(groups.map(({ size }) => size)) });
  return scope.keep(y);
}

/**
 * Computes the gradient of an input that was repeated to dy's shape: dy / divisor, summed over the repeated axes, and
 * added to `into` if given. Call it only in a derivative rule, whose scope frees the temporaries. May return a view of
 * dy.
 */
export function sumTo(input: Tensor, dy: Tensor, into?: Tensor, divisor = 1): Tensor {
  if (dy.size === input.size && divisor === 1) return dy.alias(input.shape);
  const groups = mergeAxes(dy.shape, [input.shape]).map(({ size, sizes: [kept] }) => ({ size, kept }));
  let rest = dy;
  for (let i = groups.length - 1; i >= 0; i--) {
    const { size, kept } = groups[i];
    if (kept === size) continue;
    const outer = sizeOf(groups.slice(0, i).map((g) => g.size)), inner = sizeOf(groups.slice(i + 1).map((g) => g.kept));
    const last = rest.size / size === input.size;
    const y = last ? into?.alias([outer, inner]) : undefined;
    rest = launch(sum, { x: rest.alias([outer, size, inner]), y }, { divisor: last ? divisor : 1 }).y;
    if (last) return rest.alias(input.shape);
  }
  const flat = [1, input.size]; // nothing was repeated
  return launch(sum, { x: dy.alias([1, 1, input.size]), y: into?.alias(flat) }, { divisor }).y.alias(input.shape);
}
