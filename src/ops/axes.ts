/** Axes of shapes, counted as in PyTorch. */
import { ShapeError } from "../errors.ts";
import { sizeOf } from "../engine/tensor.ts";

/** Index of an axis from the front; a negative `axis` counts from the end. A scalar has axis 0, as in PyTorch. */
export function axisOf(op: string, shape: readonly number[], axis: number): number {
  const rank = Math.max(shape.length, 1), counted = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || counted < 0 || counted >= rank) {
    throw new ShapeError(`Cannot apply ${op} to [${shape}]: there is no axis ${axis}`);
  }
  return counted;
}

/**
 * Number of elements along the axes before `axis`, from `axis` to `last`, and after `last`: (outer, axis, inner) of
 * kernels.
 */
export function splitAt(shape: readonly number[], axis: number, last = axis): [number, number, number] {
  return [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis, last + 1)), sizeOf(shape.slice(last + 1))];
}

/** Strides of a contiguous tensor: how many elements apart two neighbours along each axis are. */
export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
}
