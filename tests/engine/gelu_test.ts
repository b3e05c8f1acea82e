import { assertEquals } from "@std/assert";
import { erf } from "../../kernels/gelu/erf.ts";
import { geluErf, geluTanh } from "../../kernels/gelu/kernel.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { launch } from "../../src/engine/launch.ts";
import { gelu } from "../../src/ops/gelu.ts";
import { assertClose, devices } from "../testing.ts";
import { assertOpAgrees } from "./inputs.ts";

Deno.test("erf has fifteen digits", () => {
  // Values of Python's math.erf.
  const known = [[0.5, 0.5204998778130465], [1, 0.8427007929497149], [2, 0.9953222650189527], [
    -3,
    -0.9999779095030014,
  ]];
  for (const [x, expected] of known) assertClose([erf(x)], [expected], { atol: 0, rtol: 4e-16 }, `erf ${x}`);
  assertEquals([erf(0), erf(7), erf(-Infinity)], [0, 1, -1]);
});

Deno.test("gelu: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  const once = { atol: 3e-7, rtol: 1e-7 }, twice = { atol: 2e-6, rtol: 3e-7 }; // two passes, dy up to 4
  for (const n of [1, 7, 8, 9, 16, 17, 100_003]) {
    for (const approximate of ["none", "tanh"] as const) {
      const limits = { forward: once, backward: twice };
      await assertOpAgrees(`${n}, ${approximate}`, [{ shape: [n] }], (x) => gelu(x, { approximate }), limits);
    }
  }
});

Deno.test("gelu: the error is at most 2e-7, times |x| if that is above 1, for every x", async () => {
  const n = 200_000, x = Float32Array.from({ length: n }, (_, i) => (i / n - 0.5) * 32);
  x.set([1e-30, -1e-30, 1e-40, 100, -100, 1e4, -1e4, 1e30, -1e30, -0]);
  const cpu = await CpuDevice.create({ threads: 1, guards: true });
  for (const { forward, backward } of [geluErf, geluTanh]) {
    const run = async (device: Device) => {
      const input = device.tensor(x, [n]), dy = device.tensor(new Float32Array(n).fill(1), [n]);
      const { y } = launch(forward, { x: input }), { dx } = launch(backward, { dy, x: input });
      return [await y.data(), await dx.data()];
    };
    const [actual, expected] = [await run(cpu), await run(new ReferenceDevice())];
    for (const i of [0, 1]) {
      assertClose(actual[i], expected[i], { atol: 2e-7, rtol: 2e-7 }, i === 0 ? forward.name : backward.name);
    }
  }
  cpu.close();
});

Deno.test("gelu: NaN stays NaN", async () => {
  const device = await CpuDevice.create({ threads: 1 });
  for (const approximate of ["none", "tanh"] as const) {
    const x = device.tensor([1, NaN], [2], { requiresGrad: true }), y = gelu(x, { approximate });
    y.backward(device.tensor([1, 1], [2]));
    assertEquals(Array.from(await y.data(), Number.isNaN), [false, true]);
    assertEquals(Array.from(await x.grad!.data(), Number.isNaN), [false, true]);
  }
  device.close();
});

Deno.test("gelu: infinity gives infinity, also next to finite elements", async () => {
  for (const { name, device } of await devices()) {
    const x = device.tensor([Infinity, 1e30, 0]);
    for (const approximate of ["none", "tanh"] as const) {
      const y = [...await gelu(x, { approximate }).data()];
      if (y[0] !== Infinity || y[2] !== 0) throw new Error(`${name}, ${approximate}: ${y}`);
    }
    device.close();
  }
});
