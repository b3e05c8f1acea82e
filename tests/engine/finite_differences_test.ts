/**
 * Every op's gradients against central differences, (f(x + h) − f(x − h)) / 2h, in f64 on the reference device: an
 * argument that shares nothing with PyTorch, nor with the rules that the ops are written by.
 */
import { createDevice } from "../../src/device/create.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import * as ops from "../../src/ops/mod.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";
import { assertClose } from "../testing.ts";

interface Case {
  readonly shapes: readonly (readonly number[])[];
  readonly run: (...inputs: Tensor[]) => Tensor;
  /** Inputs lie within 1 of it; 0 where nothing is said. */
  readonly around?: number;
}

/** h² and the rounding of f, 1e-16 / h, are both far below it. */
const STEP = 1e-6, LIMIT = { atol: 1e-7, rtol: 1e-7 };
const device = await createDevice("reference");
const integers = (values: number[], shape: number[]) => device.tensor(values, shape, { dtype: "i32" });
const mask = { p: 0.3, seed: 1337, offset: integers([2], [1]), stream: 1 };

const cases: Record<string, Case[]> = {
  add: [{ shapes: [[2, 1, 3], [4, 1]], run: ops.add }],
  sub: [{ shapes: [[2, 1, 3], [4, 1]], run: ops.sub }],
  mul: [{ shapes: [[2, 1, 3], [4, 1]], run: ops.mul }, { shapes: [[5]], run: (x) => ops.mul(x, x) }],
  div: [{ shapes: [[2, 1, 3], [4, 1]], run: ops.div, around: 2 }],
  maximum: [{ shapes: [[2, 1, 3], [4, 1]], run: ops.maximum }],
  neg: [{ shapes: [[7]], run: ops.neg }],
  exp: [{ shapes: [[7]], run: ops.exp }],
  log: [{ shapes: [[7]], run: ops.log, around: 1.5 }],
  sqrt: [{ shapes: [[7]], run: ops.sqrt, around: 1.5 }],
  tanh: [{ shapes: [[7]], run: ops.tanh }],
  pow: [2, 3, 0.5, -1].map((exponent) => ({ shapes: [[7]], run: (x: Tensor) => ops.pow(x, exponent), around: 1.5 })),
  where: [{ shapes: [[2, 3], [3]], run: (a, b) => ops.where(integers([1, 0, 0, 1, 1, 0], [2, 3]), a, b) }],
  sum: [
    { shapes: [[2, 3, 4]], run: (x) => ops.sum(x) },
    { shapes: [[2, 3, 4]], run: (x) => ops.sum(x, { axis: [0, -1] }) },
  ],
  mean: [
    { shapes: [[2, 3, 4]], run: (x) => ops.mean(x) },
    { shapes: [[2, 3, 4]], run: (x) => ops.mean(x, { axis: 1, keepDim: true }) },
  ],
  max: [{ shapes: [[2, 7]], run: (x) => ops.max(x) }, { shapes: [[2, 7]], run: (x) => ops.max(x, { axis: 1 }) }],
  softmax: [{ shapes: [[3, 5]], run: (x) => ops.softmax(x) }, {
    shapes: [[3, 5]],
    run: (x) => ops.softmax(x, { axis: 0 }),
  }],
  logSoftmax: [{ shapes: [[3, 5]], run: (x) => ops.logSoftmax(x) }],
  crossEntropy: [
    { shapes: [[3, 5]], run: (x) => ops.crossEntropy(x, integers([4, -1, 0], [3]), { ignoreIndex: -1 }) },
  ],
  layerNorm: [
    { shapes: [[3, 5], [5]], run: (x, weight) => ops.layerNorm(x, weight) },
    { shapes: [[2, 2, 9], [9], [9]], run: (x, weight, bias) => ops.layerNorm(x, weight, bias) },
  ],
  gelu: (["none", "tanh"] as const).map((approximate) => ({
    shapes: [[9]],
    run: (x: Tensor) => ops.gelu(x, { approximate }),
  })),
  embedding: [{ shapes: [[4, 3]], run: (weight) => ops.embedding(integers([1, 3, 1, 1, 0, 3], [2, 3]), weight) }],
  matmul: [
    { shapes: [[3, 4], [4, 2]], run: ops.matmul },
    { shapes: [[2, 1, 3, 4], [3, 4, 2]], run: ops.matmul },
  ],
  linear: [
    { shapes: [[2, 3, 4], [5, 4]], run: (x, weight) => ops.linear(x, weight) },
    { shapes: [[3, 4], [5, 4], [5]], run: (x, weight, bias) => ops.linear(x, weight, bias) },
  ],
  causalSelfAttention: [
    { shapes: [[2, 5, 18]], run: (qkv) => ops.causalSelfAttention(qkv, { heads: 2 }) },
    { shapes: [[1, 6, 12]], run: (qkv) => ops.causalSelfAttention(qkv, { heads: 2, dropout: mask }) },
  ],
  dropout: [{ shapes: [[3, 7]], run: (x) => ops.dropout(x, mask) }],
  reshape: [{ shapes: [[2, 6]], run: (x) => ops.reshape(x, [3, -1]) }],
  transpose: [{ shapes: [[2, 3, 4]], run: (x) => ops.transpose(x, [0, 2]) }],
  permute: [{ shapes: [[2, 3, 4]], run: (x) => ops.permute(x, [2, 0, 1]) }],
  slice: [{ shapes: [[3, 7]], run: (x) => ops.slice(x, { axis: 1, start: 2, end: 5 }) }],
  concat: [{ shapes: [[3, 2], [3, 4]], run: (a, b) => ops.concat([a, b, a], { axis: 1 }) }],
  gather: [{ shapes: [[3, 4]], run: (x) => ops.gather(x, integers([0, 3, 3, 2, 2, 2], [3, 2]), { axis: 1 }) }],
};

async function check({ shapes, run, around = 0 }: Case, op: string) {
  const values = shapes.map((shape, i) =>
    Array.from({ length: sizeOf(shape) }, (_, j) => around + Math.sin(i + 1 + 1.7 * j * (j + 1)))
  );
  const make = () => shapes.map((shape, i) => device.tensor(values[i], shape, { requiresGrad: true }));
  const inputs = make(), y = run(...inputs);
  const dout = Array.from({ length: y.size }, (_, i) => Math.cos(3 + 2.3 * i * i));
  // All but the first begin with a gradient of ones, as if an earlier backward had left it.
  for (const input of inputs.slice(1)) input.grad = device.tensor(Array(input.size).fill(1), input.shape);
  y.backward(device.tensor(dout, y.shape));
  const f = async () => {
    const y = noGrad(() => run(...make()));
    return Array.from(await y.data()).reduce((sum, value, i) => sum + value * dout[i], 0);
  };
  for (const [i, at] of values.entries()) {
    const expected: number[] = [];
    for (const [j, x] of at.entries()) {
      at[j] = x + STEP;
      const above = await f();
      at[j] = x - STEP;
      expected.push((above - await f()) / (2 * STEP) + (i > 0 ? 1 : 0));
      at[j] = x;
    }
    if (!inputs[i].grad) throw new Error(`${op}: input ${i} has no gradient`);
    assertClose(await inputs[i].grad!.data(), expected, LIMIT, `${op}: gradient of input ${i}`);
  }
}

for (const [op, list] of Object.entries(cases)) {
  for (const test of list) {
    Deno.test(`${op} of [${test.shapes.join("] and [")}] agrees with finite differences`, () => check(test, op));
  }
}

Deno.test("finite differences cover every op", () => {
  const inference = ["cachedAttention"]; // decoding only: it has no derivative
  const missing = Object.keys(ops).filter((op) => !cases[op] && !inference.includes(op));
  if (missing.length > 0) throw new Error(`no case for ${missing}`);
});
