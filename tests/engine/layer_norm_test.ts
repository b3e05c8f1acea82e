import { assertEquals, assertThrows } from "@std/assert";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import { layerNorm } from "../../src/ops/layer_norm.ts";
import { tolerances } from "../golden/tolerances.ts";
import { normal } from "./agree.ts";
import { assertOpAgrees, type Input } from "./inputs.ts";

Deno.test("layer_norm: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  // Sizes around blocks of 32 rows and vectors of 8 and 16 columns, and sizes large enough for threads to share the
  // work.
  for (const [rows, C] of [[1, 1], [5, 1], [3, 7], [31, 8], [33, 17], [257, 65], [768, 128], [7, 3001]]) {
    const x: Input = { shape: [rows, C], values: normal(rows * C).map((value) => 3 * value + 1) };
    // The parameters' gradients are sums over rows: their size is about √rows, and the roundings of the additions add
    // up.
    const summed = { atol: 3e-5 + 1e-6 * Math.sqrt(rows), rtol: 1e-5 };
    const limits = { forward: tolerances.layerNorm, backward: summed };
    await assertOpAgrees(`[${rows},${C}]`, [x, { shape: [C] }], (x, weight) => layerNorm(x, weight), limits);
    const inputs = [x, { shape: [C] }, { shape: [C] }];
    await assertOpAgrees(`[${rows},${C}] with bias`, inputs, (x, weight, bias) => layerNorm(x, weight, bias), limits);
  }
});

Deno.test("layer_norm: only inputs that require a gradient get one", async () => {
  const device = new ReferenceDevice(), values = [1, 2, 4, 8, 16, 32];
  for (const [x, weight, bias] of [[true, false, false], [false, true, false], [false, false, true]]) {
    const make = (values: number[], shape: number[], requiresGrad: boolean) =>
      device.tensor(values, shape, { requiresGrad });
    const inputs = [make(values, [2, 3], x), make([1, 2, 3], [3], weight), make([0, 0, 0], [3], bias)];
    layerNorm(inputs[0], inputs[1], inputs[2]).backward(device.tensor([1, 0, 0, 1, 0, 0], [2, 3]));
    assertEquals(inputs.map(({ grad }) => grad !== undefined), [x, weight, bias]);
    if (bias) assertEquals([...await inputs[2].grad!.data()], [2, 0, 0]);
  }
});

Deno.test("layer_norm: a weight of another length is rejected", () => {
  const device = new ReferenceDevice(), x = device.tensor([1, 2, 3, 4], [2, 2]);
  assertThrows(
    () => layerNorm(x, device.tensor([1, 2, 3], [3])),
    ShapeError,
    "Cannot apply layerNorm to x [2,2] and weight [3]: weight is [3], expected [C] with C = 2",
  );
});
