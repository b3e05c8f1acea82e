/** Code that sum and mean share. */
import { sum } from "../../kernels/reduce/kernel.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, splitAt } from "./axes.ts";

/** Options of a reduction. */
export interface ReductionOptions {
  /** The axis or axes to reduce; default: all. */
  readonly axis?: number | readonly number[];
  /** Whether reduced axes stay in the shape, with size 1; default: false. */
  readonly keepDim?: boolean;
}

/** The reduced axes, sorted; the shape with those axes as 1 (`kept`); and the shape of the result. */
export function reducedShape(op: string, shape: readonly number[], { axis, keepDim = false }: ReductionOptions) {
  const axes = axis === undefined
    ? shape.map((_, i) => i)
    : (typeof axis === "number" ? [axis] : axis).map((one) => axisOf(op, shape, one)).sort((a, b) => a - b);
  if (new Set(axes).size < axes.length) {
    throw new ShapeError(`Cannot apply ${op} to [${shape}]: an axis is named twice`);
  }
  const kept = shape.map((size, i) => axes.includes(i) ? 1 : size);
  return { axes, kept, result: keepDim ? kept : shape.filter((_, i) => !axes.includes(i)) };
}

/** Computes the sum or the mean over the axes. Neighbouring axes are summed in one launch. */
export function reduceSum(op: string, x: Tensor, options: ReductionOptions, mean: boolean) {
  const { axes, kept, result } = reducedShape(op, x.shape, options);
  using scope = x.device.scope(op);
  const runs: [first: number, last: number][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run?.[1] === axis - 1) run[1] = axis;
    else runs.push([axis, axis]);
  }
  const shape = [...x.shape], count = x.size / kept.reduce((a, b) => a * b, 1);
  let y = x;
  if (runs.length === 0) runs.push([0, -1]); // no axis, or a scalar: copies x
  for (let i = runs.length - 1; i >= 0; i--) {
    const [first, last] = runs[i], [outer, length, inner] = splitAt(shape, first, last);
    y = launch(sum, { x: y.alias([outer, length, inner]) }, { divisor: mean && i === 0 ? count : 1 }).y;
    shape.fill(1, first, last + 1);
  }
  return { y: scope.keep(y.alias(result)), kept };
}
