import { mul } from "../../kernels/binary/kernel.ts";
import { matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import { Tensor } from "../engine/tensor.ts";
import { ShapeError } from "../errors.ts";

/**
 * y + scaling · (x · Aᵀ) · Bᵀ: a layer's output y plus its LoRA adapter (Hu et al. 2021, arXiv:2106.09685). With h = x
 * · Aᵀ and dh = scaling · dy · B:  dB += scaling · dyᵀ · h,  dA += dhᵀ · x,  dx += dh · A, and dy passes through to y.
 *
 * The sum is computed in place: the result takes over y's storage. The addition is part of the last matrix product and
 * needs no pass of its own over y. The layer's weight, of any storage type, is never copied.
 *
 * @param y f32 (…, out); overwritten, so nothing else may read it
 * @param x f32 (…, in)
 * @param A f32 (r, in)
 * @param B f32 (out, r)
 * @param scaling a number, or f32 (rows, r), one for each element of h, when the rows of x use different adapters
 * @returns f32 (…, out)
 * @throws {ShapeError} when the shapes disagree
 */
export function addLowRank(
  y: Tensor,
  x: Tensor,
  { A, B, scaling }: { A: Tensor; B: Tensor; scaling: number | Tensor },
): Tensor {
  const [r, inner] = A.shape, [out] = B.shape, rows = x.size / inner;
  const fits = x.shape.at(-1) === inner && B.shape[1] === r && `${y.shape}` === `${[...x.shape.slice(0, -1), out]}`;
  if (!fits) {
    throw new ShapeError(
      `Cannot apply addLowRank to y [${y.shape}], x [${x.shape}], A [${A.shape}] and B [${B.shape}]: ` +
        "expected (…, out), (…, in), (r, in) and (out, r)",
    );
  }
  if (scaling instanceof Tensor && `${scaling.shape}` !== `${[rows, r]}`) {
    throw new ShapeError(`Cannot apply addLowRank: scaling is [${scaling.shape}], expected [${[rows, r]}]`);
  }
  using scope = x.device.scope("addLowRank");
  const X = [1, rows, inner], H = [1, rows, r], Y = [1, rows, out], a = [1, r, inner], b = [1, out, r];
  const scaled = (h: Tensor) => { // h is small: rows · r numbers
    if (scaling === 1) return h;
    const flat = [1, rows * r],
      by = scaling instanceof Tensor ? scaling.alias(flat) : x.device.tensor([scaling], [1, 1]);
    return launch(mul, { a: h.alias(flat), b: by, y: x.device.empty(flat) }).y.alias(H);
  };
  const h = scaled(launch(matmulNT, { a: x.alias(X), b: A.alias(a) }).c);
  const sum = launch(matmulNT, { a: h, b: B.alias(b), c: y.alias(Y) }).c.alias(y.shape);
  record("addLowRank", sum, [y, x, A, B], [A.requiresGrad ? x : undefined, A, B, h], (dout, [, dx, dA, dB]) => {
    const dy = dout.alias(Y), dh = scaled(launch(matmulNN, { a: dy, b: B.alias(b) }).c);
    return [
      dout,
      x.requiresGrad ? launch(matmulNN, { a: dh, b: A.alias(a), c: dx?.alias(X) }).c.alias(x.shape) : undefined,
      A.requiresGrad ? launch(matmulTN, { a: dh, b: x.alias(X), c: dA?.alias(a) }).c.alias(A.shape) : undefined,
      B.requiresGrad ? launch(matmulTN, { a: dy, b: h, c: dB?.alias(b) }).c.alias(B.shape) : undefined,
    ];
  });
  return scope.keep(sum);
}
