import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { DeviceError, ShapeError } from "../../src/errors.ts";
import * as ops from "../../src/ops/mod.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";
import { assertOpAgrees, type Input } from "./inputs.ts";

/** Copies are exact. So are gradients: they are added up over two passes, and doubling a float is exact. */
const EXACT = { forward: { atol: 0, rtol: 0 }, backward: { atol: 0, rtol: 0 } };

// Ops and the shapes of their inputs: sizes around a vector of 8 elements and above one thread's share; axes that are
// contiguous in memory and axes that are not.
const CASES: [name: string, shapes: number[][], (...tensors: Tensor[]) => Tensor][] = [
  ["reshape", [[2, 3, 4]], (x) => ops.reshape(x, [4, -1])],
  ["reshape to a scalar", [[1, 1]], (x) => ops.reshape(x, [])],
  ["transpose", [[17, 33]], (x) => ops.transpose(x, [0, 1])],
  ["transpose", [[2, 70, 300]], (x) => ops.transpose(x, [1, -1])],
  ["transpose", [[70, 3, 90]], (x) => ops.transpose(x, [0, 2])],
  ["transpose", [[1, 9]], (x) => ops.transpose(x, [0, 1])],
  ["permute", [[12, 64, 4, 32]], (x) => ops.permute(x, [0, 2, 1, 3])],
  ["permute", [[12, 64, 4, 9]], (x) => ops.permute(x, [2, 0, 3, 1])],
  ["permute", [[2, 3, 2, 3, 2, 3]], (x) => ops.permute(x, [5, 2, 4, 1, 3, 0])],
  ["permute of nothing", [[]], (x) => ops.permute(x, [])],
  ["slice", [[9]], (x) => ops.slice(x, { axis: 0, start: 2, end: 7 })],
  ["slice", [[400, 130]], (x) => ops.slice(x, { axis: 1, start: -66, end: -1 })],
  ["slice", [[400, 130]], (x) => ops.slice(x, { axis: 0, start: 37 })],
  ["slice", [[3, 70, 90]], (x) => ops.slice(x, { axis: -2, end: 1000 })],
  ["concat", [[3], [4]], (...all) => ops.concat(all, { axis: 0 })],
  ["concat", [[99, 130], [99, 1], [99, 65]], (...all) => ops.concat(all, { axis: -1 })],
  ["concat", [[2, 70, 90], [2, 1, 90]], (...all) => ops.concat(all, { axis: 1 })],
];

Deno.test("shape: elements are moved as in PyTorch, on any number of threads", async () => {
  for (const [name, shapes, op] of CASES) {
    await assertOpAgrees(`${name} of [${shapes.join("] and [")}]`, shapes.map((shape) => ({ shape })), op, EXACT);
  }
  const twice = (a: Tensor, b: Tensor) => ops.concat([a, b, a], { axis: 1 }); // a's gradient sums two parts
  const limits = { ...EXACT, backward: { atol: 1e-6, rtol: 0 } };
  await assertOpAgrees("concat of a tensor twice", [{ shape: [2, 70, 90] }, { shape: [2, 1, 90] }], twice, limits);
});

Deno.test("shape: integers are moved like floats", async () => {
  for (const device of [await CpuDevice.create({ threads: 1 }), new ReferenceDevice()]) {
    const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3], { dtype: "i32" });
    assertEquals([...await ops.transpose(x, [0, 1]).data()], [1, 4, 2, 5, 3, 6]);
    assertEquals([...await ops.slice(x, { axis: 1, start: 1 }).data()], [2, 3, 5, 6]);
    assertEquals([...await ops.concat([x, x], { axis: 1 }).data()], [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
    assertEquals(ops.reshape(x, [-1]).dtype, "i32");
    device.close();
  }
});

Deno.test("gather: elements by index, and gradients that add up in one place", async () => {
  const cases: [shape: number[], index: number[], axis: number][] = [
    [[5], [3], 0],
    [[3, 7], [3, 9], -1],
    [[6, 3], [4, 2], 0],
    [[20, 50, 30], [20, 40, 30], 1],
    [[400, 65], [400, 1], 1],
    [[3, 3, 3], [2, 9, 1], 1],
  ];
  for (const [shape, places, axis] of cases) {
    const size = shape.at(axis)!,
      values = Int32Array.from({ length: sizeOf(places) }, (_, i) => (i * i + 3 * i) % size);
    const inputs: Input[] = [{ shape }, { shape: places, values, dtype: "i32" }];
    // Up to 40 gradients are added in one place. The sums are below 32, so each addition rounds by at most 1e-6.
    const limits = { forward: { atol: 0, rtol: 0 }, backward: { atol: 2e-5, rtol: 0 } };
    await assertOpAgrees(`gather from [${shape}]`, inputs, (x, index) => ops.gather(x, index, { axis }), limits);
  }
});

Deno.test("gather: an index outside the axis is rejected, or clamped if it was computed on the device", async () => {
  for (const device of [await CpuDevice.create({ threads: 2, guards: true }), new ReferenceDevice()]) {
    const x = device.tensor([10, 11, 12, 20, 21, 22], [2, 3]);
    const indices = (values: number[]) => device.tensor(values, [2, 2], { dtype: "i32" });
    const refused = (values: number[], wrong: number) =>
      assertThrows(
        () => ops.gather(x, indices(values), { axis: 1 }),
        ShapeError,
        `Cannot apply gather to [2,3] and [2,2]: index ${wrong} is outside axis 1, which has 3 places`,
      );
    refused([0, 1, 2, 3], 3);
    refused([0, -1, 2, 1], -1);
    const made = ops.transpose(indices([0, -5, 7, 1]), [0, 1]); // the host does not know its values
    assertEquals([...await ops.gather(x, made, { axis: 1 }).data()], [10, 12, 20, 21]);
    device.close();
  }
});

Deno.test("shape: operands that do not fit are rejected, with op and shapes", () => {
  const device = new ReferenceDevice(), x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
  const index = device.tensor([0, 0], [2], { dtype: "i32" });
  const refused: [() => Tensor, string][] = [
    [() => ops.reshape(x, [4, -1]), "Cannot apply reshape to [2,3] and [4,-1]"],
    [() => ops.reshape(x, [-1, -1]), "Cannot apply reshape to [2,3] and [-1,-1]"],
    [() => ops.reshape(x, [5]), "Cannot apply reshape to [2,3] and [5]"],
    [() => ops.transpose(x, [0, 2]), "Cannot apply transpose to [2,3]: there is no axis 2"],
    [
      () => ops.permute(x, [0, 0]),
      "Cannot apply permute to [2,3]: axes [0,0] do not name each of its axes exactly once",
    ],
    [() => ops.permute(x, [0]), "Cannot apply permute to [2,3]: axes [0] do not name each of its axes exactly once"],
    [
      () => ops.slice(x, { axis: 1, start: 2, end: 2 }),
      "Cannot apply slice to [2,3]: there are no elements from 2 to 2 along axis 1",
    ],
    [
      () => ops.slice(x, { axis: 1, start: 0.5 }),
      "Cannot apply slice to [2,3]: start 0.5 and end 3 are not both whole numbers",
    ],
    [() => ops.concat([], { axis: 0 }), "Cannot apply concat to no tensors"],
    [
      () => ops.concat([x, ops.reshape(x, [3, 2])], { axis: 0 }),
      "Cannot apply concat to [2,3] and [3,2]: along the axes other than 0 the sizes differ",
    ],
    [
      () => ops.gather(x, index, { axis: 0 }),
      "Cannot apply gather to [2,3] and [2]: the index has another number of axes",
    ],
    [() => ops.gather(x, ops.reshape(index, [2, 1]), { axis: 5 }), "Cannot apply gather to [2,3]: there is no axis 5"],
  ];
  for (const [call, message] of refused) assertThrows(call, ShapeError, message);
  assertThrows(() => ops.gather(x, x, { axis: 0 }), DeviceError, "index is f32, expected i32");
  assertThrows(
    () => ops.concat([x, ops.reshape(ops.concat([index, index, index], { axis: 0 }), [2, 3])], { axis: 0 }),
    DeviceError,
  );
});

Deno.test("ops leave only their result", () => {
  const device: Device = new ReferenceDevice();
  const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]), row = device.tensor([1, 2, 3], [3]);
  const column = device.tensor([1, 2], [2, 1, 1]), index = device.tensor([0, 1], [2, 1], { dtype: "i32" });
  const across = ops.reshape(index, [1, 2]);
  const calls: (() => Tensor)[] = [
    ...[ops.add, ops.sub, ops.mul, ops.div, ops.maximum].flatMap((op) => [() => op(x, row), () => op(column, x)]),
    ...[ops.neg, ops.exp, ops.log, ops.sqrt, ops.tanh].map((op) => () => op(x)),
    () => ops.pow(x, 2.5),
    () => ops.where(index, x, row),
    ...[ops.sum, ops.mean].flatMap((op) => [() => op(x), () => op(column, { axis: [0, 2] })]),
    () => ops.max(x),
    () => ops.max(x, { axis: 0 }),
    () => ops.reshape(x, [-1]),
    () => ops.transpose(x, [0, 1]),
    () => ops.permute(x, [1, 0]),
    () => ops.slice(x, { axis: 1, start: 1 }),
    () => ops.concat([x, x], { axis: 0 }),
    () => ops.gather(x, index, { axis: 1 }),
    () => ops.gather(x, across, { axis: 1 }),
  ];
  for (const call of calls) {
    const before = device.memory().tensors;
    call(); // outside of any scope, where a leaked tensor would stay
    assertEquals(device.memory().tensors, before + 1, `${call}`);
  }
});
