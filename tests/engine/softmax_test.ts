import { assertEquals, assertThrows } from "@std/assert";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import { logSoftmax } from "../../src/ops/log_softmax.ts";
import { softmax } from "../../src/ops/softmax.ts";
import { assertAgrees, outputAndGradient } from "./agree.ts";

/**
 * A log-probability of size 20 rounds by 2e-6, which is then also the relative error of the probability. The gradient
 * multiplies the probability by Σ dy, a sum of 300 normal numbers, which is about 17.
 */
const LIMIT = { atol: 3e-5, rtol: 2e-6 };

for (const [name, op] of [["softmax", softmax], ["log_softmax", logSoftmax]] as const) {
  Deno.test(`${name}: the CPU agrees with the reference along each axis, on any number of threads`, async () => {
    for (const shape of [[1], [17], [1, 33], [301, 65], [7, 1], [5, 7, 9], [3, 130, 19], [2, 3, 257]]) {
      for (let axis = 0; axis < shape.length; axis++) {
        await assertAgrees(
          `[${shape}] axis ${axis}`,
          LIMIT,
          (device) => outputAndGradient(device, shape, (x) => op(x, { axis }), 4),
        );
      }
    }
  });
}

Deno.test("softmax: −∞ gets probability 0, and a line of only −∞ is NaN", async () => {
  for (const axis of [0, 1]) {
    const values = axis ? [-Infinity, 0, -Infinity, -Infinity] : [-Infinity, -Infinity, 0, -Infinity];
    await assertAgrees(
      `axis ${axis}`,
      { atol: 0, rtol: 0 },
      (device) => [softmax(device.tensor(values, [2, 2]), { axis })],
    );
  }
  const device = new ReferenceDevice();
  assertEquals([...await softmax(device.tensor([-Infinity, 0, -Infinity, -Infinity], [2, 2])).data()], [
    0,
    1,
    NaN,
    NaN,
  ]);
});

Deno.test("softmax: an axis that does not exist is rejected", () => {
  const x = new ReferenceDevice().tensor([1, 2], [1, 2]);
  for (const axis of [2, -3, 0.5]) {
    assertThrows(() => softmax(x, { axis }), ShapeError, `Cannot apply softmax to [1,2]: there is no axis ${axis}`);
  }
});
