import { matmulBias, matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import { sum } from "../../kernels/reduce/kernel.ts";
import { layOut } from "../../kernels/panels/kernel.ts";
import { isRecording, record } from "../engine/autograd.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { Tensor } from "../engine/tensor.ts";

/**
 * y = x · weightᵀ + bias, like `torch.nn.functional.linear`.
 *
 * @param x (…, in)
 * @param weight (out, in): f32, or a rounded type (bf16, q8_0), which gets no gradient. The result and dx have the same
 *   bits as with the rounded values in f32
 * @param bias (out); may be left out
 * @returns (…, out)
 * @throws {ShapeError} when the last axis of x is not as long as that of weight, or bias is not as long as its first
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.linear.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { linear } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const [x, weight, bias] = [device.tensor([1, 2], [2]), device.tensor([3, 4, 5, 6], [2, 2]), device.tensor([7, 8], [2])];
 * assertEquals([...await linear(x, weight, bias).data()], [18, 25]);
 * device.close();
 * ```
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const [out, inner] = weight.shape, rows = x.size / inner;
  if (weight.shape.length !== 2) refuse(x, weight, "the weight is not a matrix (out, in)");
  if (x.shape.at(-1) !== inner) refuse(x, weight, `inner sizes ${x.shape.at(-1) ?? "none"} and ${inner} differ`);
  if (bias && `${bias.shape}` !== `${out}`) refuse(x, weight, `the bias is [${bias.shape}], expected [${out}]`);

  using scope = x.device.scope("linear");
  const X = [1, rows, inner], W = [1, out, inner], Y = [1, rows, out];
  const operands = { a: x.alias(X), b: inPanels(weight)?.alias(W) ?? weight.alias(W) };
  const { c } = bias ? launch(matmulBias, { ...operands, bias }) : launch(matmulNT, operands);
  const y = c.alias([...x.shape.slice(0, -1), out]);
  // Only dweight needs x, so x is not saved if the weight is frozen. In a frozen model this saves most of the memory.
  const passes = x.requiresGrad, trains = weight.requiresGrad;
  record("linear", y, [x, weight, bias], [trains ? x : undefined, passes ? weight : undefined], (dout, into) => {
    const dy = dout.alias(Y), [dx, dweight, dbias] = into;
    return [
      passes ? launch(matmulNN, { a: dy, b: weight.alias(W), c: dx?.alias(X) }).c.alias(x.shape) : undefined,
      trains ? launch(matmulTN, { a: dy, b: x.alias(X), c: dweight?.alias(W) }).c.alias([out, inner]) : undefined,
      bias?.requiresGrad ? launch(sum, { x: dy, y: dbias?.alias([1, out]) }, { divisor: 1 }).y.alias([out]) : undefined,
    ];
  });
  return scope.keep(y);
}

/**
 * Copies a trainable weight into panels, the order in which the CPU multiplies a few rows fastest. Inside `noGrad`,
 * `linear` reads the copy instead of the weight. The next change of the weight drops the copy. Does nothing if there
 * already is a copy, the device does not use panels, or the copy does not fit into its memory.
 */
export function layOutWeight({ device, storage, shape: [rows, length] }: Tensor): void {
  const { block, offset } = storage;
  if (device.panelWidth === 0 || block.panels || block.laid?.has(offset)) return;
  using _ = device.scope();
  try {
    const copy = device.allocate(storage.length, "f32", { lasting: true, matrix: [rows, length] });
    launch(layOut, { x: new Tensor(storage, [rows, length]), y: new Tensor(copy, [rows, length]) });
    copy.block.hold();
    (block.laid ??= new Map()).set(offset, copy);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
  }
}
/** Returns the copy that {@linkcode layOutWeight} made of a weight; undefined if there is none, or outside `noGrad`. */
function inPanels({ storage: { block, offset }, shape }: Tensor): Tensor | undefined {
  const copy = isRecording() ? undefined : block.laid?.get(offset);
  return copy && new Tensor(copy, shape);
}

function refuse(x: Tensor, weight: Tensor, why: string): never {
  throw new ShapeError(`Cannot apply linear to [${x.shape}] and weight [${weight.shape}]: ${why}`);
}
