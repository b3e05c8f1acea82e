import { matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, type Tensor } from "../engine/tensor.ts";
import { commonShape, expand, sumTo } from "./broadcast.ts";

/**
 * The matrix product a · b over the last two axes, like `torch.matmul`; the axes before them broadcast. A vector counts
 * as a row on the left and as a column on the right; the result then lacks that axis. da = dy · bᵀ, db = aᵀ · dy.
 *
 * @param a (…, M, K) or (K)
 * @param b (…, K, N) or (K)
 * @returns (…, M, N)
 * @throws {ShapeError} when the two K differ, or the leading axes do not broadcast
 * @see https://pytorch.org/docs/stable/generated/torch.matmul.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { matmul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const y = matmul(device.tensor([1, 2, 3, 4], [2, 2]), device.tensor([5, 6], [2]));
 * assertEquals([...await y.data()], [17, 39]);
 * device.close();
 * ```
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const { A, B, batch, M, K, N, shape } = sizes(a.shape, b.shape);
  // If b is a single matrix, all rows of a are multiplied with it in one product, and nothing has to be repeated.
  const folded = sizeOf(B.slice(0, -2)) === 1, count = folded ? 1 : sizeOf(batch), rows = folded ? a.size / K : M;
  const left = () => (folded ? a : expand(a.alias(A), [...batch, M, K])).alias([count, rows, K]);
  const right = () => (folded ? b : expand(b.alias(B), [...batch, K, N])).alias([count, K, N]);

  using scope = a.device.scope("matmul");
  const y = launch(matmulNN, { a: left(), b: right() }).c.alias(shape);
  record("matmul", y, [a, b], [a, b], (dout, [da, db]) => {
    const dy = dout.alias([count, rows, N]);
    const leftWhole = a.size === count * rows * K, rightWhole = b.size === count * K * N;
    const gradientOfA = () => {
      const { c } = launch(matmulNT, { a: dy, b: right(), c: leftWhole ? da?.alias([count, rows, K]) : undefined });
      return (leftWhole ? c : sumTo(a.alias(A), c.alias([...batch, M, K]), da)).alias(a.shape);
    };
    const gradientOfB = () => {
      const { c } = launch(matmulTN, { a: left(), b: dy, c: rightWhole ? db?.alias([count, K, N]) : undefined });
      return (rightWhole ? c : sumTo(b.alias(B), c.alias([...batch, K, N]), db)).alias(b.shape);
    };
    return [a.requiresGrad ? gradientOfA() : undefined, b.requiresGrad ? gradientOfB() : undefined];
  });
  return scope.keep(y);
}

/** Returns both shapes (a vector's as that of a matrix), the broadcast leading axes, and the shape of the result. */
function sizes(a: readonly number[], b: readonly number[]) {
  const refuse = (why: string) => new ShapeError(`Cannot apply matmul to [${a}] and [${b}]: ${why}`);
  if (a.length === 0 || b.length === 0) throw refuse("a scalar is not a matrix");
  const A = a.length === 1 ? [1, ...a] : a, B = b.length === 1 ? [...b, 1] : b;
  const [M, K] = A.slice(-2), [inner, N] = B.slice(-2);
  if (K !== inner) throw refuse(`inner sizes ${K} and ${inner} differ`);
  let batch: number[];
  try {
    batch = commonShape("matmul", [A.slice(0, -2), B.slice(0, -2)]);
  } catch {
    throw refuse("the leading axes do not broadcast");
  }
  const shape = [...batch, ...(a.length === 1 ? [] : [M]), ...(b.length === 1 ? [] : [N])];
  return { A, B, batch, M, K, N, shape };
}
