import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError, DeviceError, ShapeError } from "../../src/errors.ts";
import * as ops from "../../src/ops/mod.ts";
import { commonShape } from "../../src/ops/broadcast.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";
import type { Limit } from "../testing.ts";
import { normal } from "./agree.ts";
import { assertOpAgrees } from "./inputs.ts";

/** The error of one rounding: half a unit in the last place, which is at most 2⁻²⁴ of the value. */
const ROUNDED: Limit = { atol: 0, rtol: 6e-8 };

// Pairs of shapes: sizes around the eight elements of a vector, sizes above a thread's chunk, and every way to
// broadcast: a scalar, a row for all rows, a number per row, both inputs at once, and shapes that must be expanded
// first.
const PAIRS = [
  ...[1, 7, 8, 9, 257, 40_003].map((n) => [[n], [n]]),
  [[], []],
  [[313, 65], []],
  [[], [313, 65]],
  [[313, 65], [65]],
  [[1, 65], [313, 65]],
  [[313, 65], [313, 1]],
  [[313, 1], [313, 65]],
  [[130, 1], [1, 131]],
  [[9000, 3], [3]],
  [[40, 7, 50], [7, 1]],
  [[7, 1], [40, 7, 50]],
  [[3, 1, 2, 1], [1, 4, 1, 5]],
  [[2, 1, 3, 1, 2, 1], [1, 3, 1, 2, 1, 2]],
];

Deno.test("elementwise: two inputs, broadcast in every way, agree on any number of threads", async () => {
  for (const [a, b] of PAIRS) {
    // A gradient is a sum of n terms of size 1. Partial sums are about √n, each addition rounds by 6e-8 of that, and at
    // most 256 additions depend on one another. So the error is about 6e-8 · √n · √256 in each of two passes.
    const terms = sizeOf(commonShape("", [a, b])) / Math.min(sizeOf(a), sizeOf(b));
    const backward = { atol: 2e-6 * Math.sqrt(terms), rtol: 1e-6 };
    for (const name of ["add", "sub", "mul", "div", "maximum"] as const) {
      const positive = normal(sizeOf(b), 3).map((x) => Math.abs(x) + 0.5);
      const right = name === "div" ? { shape: b, values: positive } : { shape: b };
      const what = `${name} of [${a}] and [${b}]`;
      await assertOpAgrees(what, [{ shape: a }, right], ops[name], { forward: ROUNDED, backward });
    }
  }
});

Deno.test("elementwise: where, all three broadcast", async () => {
  for (
    const [c, a, b] of [[[9], [9], [9]], [[40_003], [40_003], []], [[4, 1], [4, 5], [5]], [[2, 1, 3], [4, 1], [1]]]
  ) {
    const values = normal(sizeOf(c), 5).map((x) => x > 0 ? 7 : 0);
    const inputs = [{ shape: c, values, dtype: "i32" as const }, { shape: a }, { shape: b }];
    const limits = { forward: { atol: 0, rtol: 0 }, backward: { atol: 4e-4, rtol: 1e-6 } };
    await assertOpAgrees(`where of [${c}], [${a}] and [${b}]`, inputs, ops.where, limits);
  }
});

Deno.test("elementwise: one input, over the whole range of floats", async () => {
  const sweep = (n: number, f: (t: number) => number) => Float32Array.from({ length: n }, (_, i) => f(i / (n - 1)));
  const all = sweep(20_001, (t) => 2 ** (252 * t - 125)), one = sweep(9999, (t) => 0.4 + 1.6 * t);
  const line = sweep(20_001, (t) => 24 * t - 12);
  // Measured errors, in units in the last place: exp 1, log 0.62, tanh 4.9 above ½ and 2.6 below.
  const limits: [string, (x: Tensor) => Tensor, Float32Array, Limit][] = [
    ["neg", ops.neg, line, { atol: 0, rtol: 0 }],
    ["exp", ops.exp, line.map((x) => 7 * x), { atol: 0, rtol: 2.4e-7 }],
    ["log", ops.log, all, { atol: 0, rtol: 1e-7 }],
    ["log near 1", ops.log, one, { atol: 0, rtol: 1e-7 }],
    ["sqrt", ops.sqrt, all, ROUNDED],
    ["tanh", ops.tanh, line, { atol: 0, rtol: 3.5e-7 }],
    ["tanh of small numbers", ops.tanh, all.map((x) => Math.min(x, 1)), { atol: 0, rtol: 3.5e-7 }],
  ];
  for (const [name, op, values, forward] of limits) {
    // tanh's 1 − y² cancels near ±1, where the error of y remains.
    const backward = { atol: 4e-6, rtol: 1e-6 };
    await assertOpAgrees(name, [{ shape: [values.length], values }], op, { forward, backward });
  }
  for (const exponent of [0, 1, 2, 3, 0.5, -0.5, -1, -2, 4, 7, -3, 2.5, -1.5, 0.25]) {
    const bound = 80 / (Math.abs(exponent) + 1), values = sweep(9001, (t) => Math.exp(bound * (2 * t - 1)));
    const forward = { atol: 0, rtol: 3.5e-7 }, backward = { atol: 0, rtol: 8e-7 };
    const raise = (x: Tensor) => ops.pow(x, exponent);
    await assertOpAgrees(`pow ${exponent}`, [{ shape: [9001], values }], raise, { forward, backward });
  }
});

Deno.test("elementwise: zeros, infinities and NaN as in PyTorch", async () => {
  const cpu = await CpuDevice.create({ threads: 1 }), { NaN: nan, POSITIVE_INFINITY: inf } = Number;
  // Nine elements: the CPU computes eight as a vector, and the last one alone.
  const x = [0, -0, -1, -2, 2, inf, -inf, nan, 1];
  const expected: [string, (x: Tensor) => Tensor, number[]][] = [
    ["log", ops.log, [-inf, -inf, nan, nan, Math.fround(Math.LN2), inf, nan, nan, 0]],
    ["sqrt", ops.sqrt, [0, -0, nan, nan, Math.fround(Math.SQRT2), inf, nan, nan, 1]],
    ["pow 2", (x) => ops.pow(x, 2), [0, 0, 1, 4, 4, inf, inf, nan, 1]],
    ["pow 4", (x) => ops.pow(x, 4), [0, 0, 1, 16, 16, inf, inf, nan, 1]],
    ["pow 5", (x) => ops.pow(x, 5), [0, -0, -1, -32, 32, inf, -inf, nan, 1]],
    ["pow -5", (x) => ops.pow(x, -5), [inf, -inf, -1, -1 / 32, 1 / 32, 0, -0, nan, 1]],
    ["pow 2.5", (x) => ops.pow(x, 2.5), [0, 0, nan, nan, Math.fround(4 * Math.SQRT2), inf, inf, nan, 1]],
    ["pow -2.5", (x) => ops.pow(x, -2.5), [inf, inf, nan, nan, Math.fround(Math.SQRT2 / 8), 0, 0, nan, 1]],
    ["pow 0", (x) => ops.pow(x, 0), [1, 1, 1, 1, 1, 1, 1, 1, 1]],
    ["maximum", (x) => ops.maximum(x, cpu.tensor([1], [1])), [1, 1, 1, 1, 2, inf, 1, nan, 1]],
    ["maximum", (x) => ops.maximum(cpu.tensor([nan], [1]), x), Array(9).fill(nan)],
  ];
  for (const [name, op, values] of expected) assertEquals([...await op(cpu.tensor(x, [9])).data()], values, name);
  const saturated = [...await ops.tanh(cpu.tensor([0, 9.5, -9.5, 100, -100, inf, -inf, nan, 1e-30], [9])).data()];
  assertEquals(saturated, [0, 1, -1, 1, -1, 1, -1, nan, Math.fround(1e-30)]);
  const grown = [...await ops.exp(cpu.tensor([0, 89, -104, inf, -inf, nan], [6])).data()];
  assertEquals(grown, [1, inf, 0, inf, 0, nan]);
  cpu.close();
});

Deno.test("elementwise: gradients at kinks and ties follow PyTorch's conventions", async () => {
  const cpu = await CpuDevice.create({ threads: 1 });
  for (const device of [cpu, new ReferenceDevice()]) {
    const a = device.tensor([1, 2, -3, 0, NaN], [5], { requiresGrad: true });
    const b = device.tensor([1, 3, -3, -1, 2], [5], { requiresGrad: true });
    ops.maximum(a, b).backward(device.tensor([2, 2, 2, 2, 2], [5]));
    assertEquals([[...await a.grad!.data()], [...await b.grad!.data()]], [[1, 0, 1, 2, 2], [1, 2, 1, 0, 2]]);
    const x = device.tensor([0, -1, 2], [3], { requiresGrad: true });
    ops.pow(x, 0).backward(device.tensor([1, 1, 1], [3]));
    assertEquals([...await x.grad!.data()], [0, 0, 0]);
    ops.mul(x, x).backward(device.tensor([1, 1, 1], [3])); // both inputs are one tensor, which has a gradient
    assertEquals([...await x.grad!.data()], [0, -2, 4]);
  }
  cpu.close();
});

Deno.test("elementwise: operands that do not fit are rejected, with op and shapes", () => {
  const device = new ReferenceDevice(), other = new ReferenceDevice();
  const two = device.tensor([1, 2], [2]),
    three = device.tensor([1, 2, 3], [3]),
    whole = device.tensor([1, 2], [2], { dtype: "i32" });
  assertThrows(() => ops.add(two, three), ShapeError, "Cannot apply add to [2] and [3]");
  assertThrows(() => ops.where(whole, two, three), ShapeError, "Cannot apply where to [2] and [2] and [3]");
  assertThrows(
    () => ops.mul(two, other.tensor([1, 2], [2])),
    DeviceError,
    "Cannot apply mul to a [1,2] and b [1,2]: b is on another device",
  );
  assertThrows(
    () => ops.sub(two, whole),
    DeviceError,
    "Cannot apply sub to a [1,2] and b [1,2]: b is i32, expected f32",
  );
  assertThrows(() => ops.exp(whole), DeviceError, "Cannot apply exp to x [2]: x is i32, expected f32");
  assertThrows(() => ops.where(two, two, two), DeviceError, "condition is f32, expected i32");
  assertThrows(() => ops.pow(two, Infinity), ConfigError, "Cannot apply pow to [2]: the exponent is Infinity");
});
