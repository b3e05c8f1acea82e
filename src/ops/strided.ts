/** Strided copies of tensors of any rank, on top of the copy and transpose kernels. Nothing is recorded. */
import { copy, COPY_RANK } from "../../kernels/copy/kernel.ts";
import { transpose } from "../../kernels/transpose/kernel.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * Makes a new tensor of `shape`: its element at index (i₀, i₁, …) is element number offset + Σ iₙ · strides[n] of x.
 * The caller makes sure that this number is inside x.
 */
export function copyStrided(
  op: string,
  x: Tensor,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): Tensor {
  // Drops axes of size 1 and merges neighbours that are contiguous in x. More than three axes are rarely left.
  const axes: { size: number; stride: number }[] = [];
  shape.forEach((size, axis) => {
    const last = axes.at(-1), stride = strides[axis];
    if (size === 1) return;
    if (last && last.stride === stride * size) Object.assign(last, { size: last.size * size, stride });
    else axes.push({ size, stride });
  });
  if (axes.length > COPY_RANK) {
    throw new ShapeError(
      `Cannot apply ${op} to [${x.shape}]: it needs more than ${COPY_RANK} axes that cannot be merged`,
    );
  }
  using scope = x.device.scope(op);
  const y = x.device.empty(shape, { dtype: x.dtype });

  const [batch, down, across] = [{ size: 1, stride: x.size }, ...axes].slice(-3);
  const [rows, columns] = [across?.size, down?.size], matrix = rows * columns;
  const turns = axes.length <= 3 && down?.stride === 1 && across?.stride === columns && batch.stride === matrix;
  if (turns && x.dtype === "f32" && y.size === x.size) {
    launch(transpose, { x: x.alias([batch.size, rows, columns]), y: y.alias([batch.size, columns, rows]) });
    return scope.keep(y);
  }
  while (axes.length < COPY_RANK) axes.unshift({ size: 1, stride: 0 });
  const [s0, s1, s2, s3, s4, s5] = axes.map(({ stride }) => stride), params = { offset, s0, s1, s2, s3, s4, s5 };
  const operands = { x: x.alias([x.size]), y: y.alias(axes.map(({ size }) => size)) };
  if (x.dtype === "i32") launch(copy.i32, operands, params);
  else launch(copy.f32, operands, params);
  return scope.keep(y);
}
