import { assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import { crossEntropy } from "../../src/ops/cross_entropy.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertAgrees, outputAndGradient } from "./agree.ts";

Deno.test("cross_entropy: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  for (const [rows, V] of [[1, 1], [3, 7], [768, 65], [257, 33], [5, 5003]]) {
    for (const ignoreIndex of [-100, 0]) {
      const targets = Int32Array.from({ length: rows }, (_, row) => (row + 1) * 7919 % V);
      await assertAgrees(
        `[${rows},${V}] ignoring ${ignoreIndex}`,
        tolerances.crossEntropy,
        (device) =>
          outputAndGradient(
            device,
            [rows, V],
            (x) => crossEntropy(x, device.tensor(targets, [rows], { dtype: "i32" }), { ignoreIndex }),
            4,
          ),
      );
    }
  }
});

Deno.test("cross_entropy: if all targets are ignored, the loss is NaN, as in PyTorch, and the gradient 0", async () => {
  for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 1 })]) {
    const x = device.tensor([1, 2, 3, 4], [2, 2], { requiresGrad: true });
    const loss = crossEntropy(x, device.tensor([-1, -1], [2], { dtype: "i32" }), { ignoreIndex: -1 });
    loss.backward();
    assertEquals(await loss.item(), NaN);
    assertEquals([...await x.grad!.data()], [0, 0, 0, 0]);
  }
});

Deno.test("cross_entropy: an invalid target is rejected, or counts as the last class if it was computed on the device", async () => {
  for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 1, guards: true })]) {
    const x = device.tensor([1, 2, 3, 4], [2, 2]), i32 = { dtype: "i32" } as const;
    const targets = (...values: number[]) => device.tensor(values, [2], i32);
    for (const [target, other] of [[2, 0], [-1, 1]]) {
      assertThrows(
        () => crossEntropy(x, targets(other, target)),
        ShapeError,
        `: ${target} is not a class; rows of 2 logits have classes 0 to 1`,
      );
      const unseen = targets(other, target);
      unseen.storage.block.bounds = undefined;
      assertEquals(await crossEntropy(x, unseen).item(), await crossEntropy(x, targets(other, 1)).item());
    }
    assertThrows(() => crossEntropy(x, device.tensor([0], [1], i32)), ShapeError, "logits [2,2] and targets [1]");
  }
});
