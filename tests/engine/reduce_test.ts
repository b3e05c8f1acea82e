import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import * as ops from "../../src/ops/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertOpAgrees } from "./inputs.ts";

// Shapes and axes: sums along rows and along columns; one element; sizes around vectors of 8 elements, reductions of 16
// and tasks of 32 columns; sizes of exactly a block (4096 elements, or 256 rows), of one more, and of many blocks.
const CASES: [shape: number[], axis: number | number[] | undefined][] = [
  [[], undefined],
  [[1], undefined],
  ...[7, 8, 9, 31, 4096, 4097, 8192, 100_003].map((n): [number[], undefined] => [[n], undefined]),
  [[313, 65], 1],
  [[3, 5000], 1],
  [[2, 3, 4], [0, 2]],
  [[65, 313], 0],
  [[256, 31], 0],
  [[257, 33], 0],
  [[1000, 1], 0],
  [[999, 40], 0],
  [[3, 700, 70], 1],
  [[5, 6, 7, 8], [1, 2]],
  [[5, 6, 7, 8], [0, 1, 3]],
  [[70_000, 2], 0],
];

Deno.test("reduce: sum, mean and max over any axis agree on any number of threads", async () => {
  for (const [shape, axis] of CASES) {
    for (const keepDim of [false, true]) {
      const count = shape.filter((_, i) => axis === undefined || [axis].flat().includes(i)).reduce((a, b) => a * b, 1);
      const what = `[${shape}] over ${axis ?? "all"}`, exact = { atol: 0, rtol: 0 }, rounded = { atol: 0, rtol: 2e-7 };
      // Partial sums of n terms are about √n, and at most 256 additions, each with a relative error of 6e-8, depend on
      // one another.
      const atol = 1e-6 * Math.sqrt(count), limits = { forward: { atol, rtol: 1e-6 }, backward: rounded };
      await assertOpAgrees(`sum of ${what}`, [{ shape }], (x) => ops.sum(x, { axis, keepDim }), limits);
      const shrunk = { forward: { atol: atol / count, rtol: 1e-6 }, backward: rounded };
      await assertOpAgrees(`mean of ${what}`, [{ shape }], (x) => ops.mean(x, { axis, keepDim }), shrunk);
      if (typeof axis === "object") continue;
      const max = (x: Tensor) => ops.max(x, { axis, keepDim });
      await assertOpAgrees(`max of ${what}`, [{ shape }], max, { forward: exact, backward: rounded });
    }
  }
});

Deno.test("reduce: ties and NaN as in PyTorch", async () => {
  const devices = [await CpuDevice.create({ threads: 1 }), new ReferenceDevice()];
  for (const device of devices) {
    const gradient = async (values: number[], axis?: number) => {
      const x = device.tensor(values, [values.length], { requiresGrad: true }), y = ops.max(x, { axis });
      y.backward();
      return [await y.item(), ...await x.grad!.data()];
    };
    assertEquals(await gradient([1, 3, 3, 2], 0), [3, 0, 1, 0, 0]);
    assertEquals(await gradient([1, 3, 3, 2]), [3, 0, 0.5, 0.5, 0]);
    assertEquals(await gradient([1, NaN, 3, NaN], 0), [NaN, 0, 1, 0, 0]);
    assertEquals(await gradient([1, NaN, 3, NaN]), [NaN, 0, 0.5, 0, 0.5]);
    assertEquals(await gradient([-Infinity, -Infinity], 0), [-Infinity, 1, 0]);
    // NaN at any place of a row or a column, both in a vector and in a single lane.
    for (const [rows, columns] of [[1, 37], [37, 1], [5, 41]]) {
      for (const axis of [0, 1]) {
        for (let place = 0; place < rows * columns; place++) {
          const values = Array.from({ length: rows * columns }, (_, i) => i === place ? NaN : i % 7);
          const y = await ops.max(device.tensor(values, [rows, columns]), { axis }).data();
          const hit = axis === 0 ? place % columns : Math.floor(place / columns);
          y.forEach((value, i) =>
            assertEquals(Number.isNaN(value), i === hit, `[${rows},${columns}], NaN at ${place}`)
          );
        }
      }
    }
  }
  devices[0].close();
});

Deno.test("reduce: axes that do not exist are rejected", () => {
  const x = new ReferenceDevice().tensor([1, 2, 3, 4, 5, 6], [2, 3]);
  assertThrows(() => ops.sum(x, { axis: 2 }), ShapeError, "Cannot apply sum to [2,3]: there is no axis 2");
  assertThrows(() => ops.mean(x, { axis: [0, -2] }), ShapeError, "Cannot apply mean to [2,3]: an axis is named twice");
  assertThrows(() => ops.max(x, { axis: -3 }), ShapeError, "Cannot apply max to [2,3]: there is no axis -3");
  assertThrows(() => ops.max(x, { axis: 0.5 }), ShapeError, "Cannot apply max to [2,3]: there is no axis 0.5");
});
