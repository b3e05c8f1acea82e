import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import { embedding } from "../../src/ops/embedding.ts";
import { assertOpAgrees, type Input } from "./inputs.ts";

Deno.test("embedding: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  // One row; rows that are never looked up; rows that are looked up many times; a vocabulary far larger than the text.
  for (const [n, V, C] of [[1, 1, 1], [5, 3, 7], [4, 9, 8], [768, 65, 128], [1001, 2, 33], [13, 20_011, 17]]) {
    const values = Int32Array.from({ length: n }, (_, i) => (i * i + 3 * i) % 7919 % V);
    const ids: Input = { shape: [n], values, dtype: "i32" };
    // A gradient is a sum of up to n numbers of size 1, in each of two passes.
    const limits = { forward: { atol: 0, rtol: 0 }, backward: { atol: 1e-6 * Math.sqrt(n), rtol: 1e-6 } };
    await assertOpAgrees(
      `${n} of [${V},${C}]`,
      [ids, { shape: [V, C] }],
      (ids, weight) => embedding(ids, weight),
      limits,
    );
  }
});

Deno.test("embedding: backward adds to an existing gradient, and other rows stay unchanged", async () => {
  for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 1, guards: true })]) {
    const weight = device.tensor([1, 2, 3, 4, 5, 6], [3, 2], { requiresGrad: true });
    weight.grad = device.tensor([10, 10, 20, 20, 30, 30], [3, 2]);
    const y = embedding(device.tensor([2, 0, 2], [3, 1], { dtype: "i32" }), weight);
    y.backward(device.tensor([1, 2, 3, 4, 5, 6], [3, 1, 2]));
    assertEquals([...await y.data()], [5, 6, 1, 2, 5, 6]);
    assertEquals([...await weight.grad.data()], [13, 14, 20, 20, 36, 38]);
    device.close();
  }
});

Deno.test("embedding: an invalid id is rejected, or takes the last row if it was computed on the device", async () => {
  for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 1, guards: true })]) {
    const weight = device.tensor([1, 2, 3, 4], [2, 2], { requiresGrad: true });
    const ids = (...values: number[]) => device.tensor(values, [values.length], { dtype: "i32" });
    const message = (id: number) => `and [2,2]: id ${id} is not one of its 2 rows`;
    assertThrows(() => embedding(ids(0, 2), weight), ShapeError, message(2));
    assertThrows(() => embedding(ids(-1, 0), weight), ShapeError, message(-1));
    const unseen = ids(-1, 0, 2);
    unseen.storage.block.bounds = undefined;
    const y = embedding(unseen, weight);
    y.backward(device.tensor([1, 1, 2, 2, 3, 3], [3, 2]));
    assertEquals([...await y.data()], [3, 4, 1, 2, 3, 4]);
    assertEquals([...await weight.grad!.data()], [2, 2, 4, 4]);
    device.close();
  }
});
