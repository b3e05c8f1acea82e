/**
 * Compares matrix products on every device with the reference device, at sizes for which the GPU runs different passes.
 */
import { assertEquals } from "@std/assert";
import { planOf } from "../../kernels/matmul/gpu.ts";
import { matmulBias, matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { launch } from "../../src/engine/launch.ts";
import { assertClose, devices } from "../testing.ts";
import { normal } from "./agree.ts";

const kernels = { NN: matmulNN, NT: matmulNT, TN: matmulTN };
type Case = readonly [form: keyof typeof kernels, plan: string, batch: number, M: number, K: number, N: number];

const CASES: Case[] = [
  ["NT", "few rows", 1, 1, 4, 1],
  ["NT", "few rows", 1, 1, 384, 65],
  ["NT", "few rows", 3, 5, 132, 9],
  ["NT", "few rows", 1, 8, 20, 523],
  ...(["NN", "NT", "TN"] as const).flatMap((form): Case[] => [
    [form, "tiles of 64", 1, 9, 5, 7],
    [form, "tiles of 64", 2, 65, 33, 130],
    [form, "tiles of 64, fours", 1, 68, 20, 132],
    [form, "tiles of 64, fours", 2, 12, 64, 8],
    [form, "tiles of 128, fours", 64, 136, 20, 132], // 256 tiles
  ]),
  ["TN", "tiles of 64, 2 parts", 1, 7, 600, 5],
  ["TN", "tiles of 64, fours, 3 parts", 2, 68, 1001, 12],
  // With this many parts, the last parts are empty.
  ["TN", "tiles of 128, fours, 257 parts", 1, 8, 66_000, 12],
];

for (const [form, plan, batch, M, K, N] of CASES) {
  const sizes = { batch, M, N, K };
  Deno.test(`matmul ${form} of [${batch},${M},${K},${N}] is computed by ${plan}`, () => {
    const { fewRows, tile, fours, parts } = planOf(form, sizes);
    const tiles = [`tiles of ${tile}`, fours && "fours", parts > 1 && `${parts} parts`].filter(Boolean).join(", ");
    assertEquals(fewRows ? "few rows" : tiles, plan);
  });
}

/** Integers from −15 to 15: sums of up to 66,000 products stay below 2²⁴, so they are exact in any order. */
const integers = (count: number, seed: number) =>
  Float32Array.from(normal(count, seed), (x) => Math.max(-15, Math.min(15, Math.round(4 * x))));

const reference = new ReferenceDevice();
for (const { name, device } of (await devices()).filter(({ device }) => device.name !== "reference")) {
  for (const [form, plan, batch, M, K, N] of CASES) {
    Deno.test(`matmul ${form} of [${batch},${M},${K},${N}], ${plan}, fresh, added and with a bias (${name})`, async () => {
      const results = (device: Device) => {
        using _ = device.scope();
        const [ofA, ofB] = [form === "TN" ? [K, M] : [M, K], form === "NT" ? [N, K] : [K, N]];
        const a = device.tensor(integers(batch * M * K, 1), [batch, ...ofA]);
        const b = device.tensor(integers(batch * K * N, 2), [batch, ...ofB]);
        const c = device.tensor(integers(batch * M * N, 3), [batch, M, N]), bias = device.tensor(integers(N, 4), [N]);
        const products = [launch(kernels[form], { a, b }).c, launch(kernels[form], { a, b, c }).c];
        if (form === "NT") products.push(launch(matmulBias, { a, b, bias }).c);
        return Promise.all(products.map((tensor) => tensor.data()));
      };
      const [expected, actual] = [await results(reference), await results(device)];
      actual.forEach((values, i) => assertClose(values, expected[i], { atol: 0, rtol: 0 }, `result ${i}`));
    });
  }
}
