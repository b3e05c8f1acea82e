import { assert, assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError } from "../../src/errors.ts";
import { i32, kernel } from "../../src/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { dropout } from "../../src/ops/dropout.ts";
import { philox } from "../../src/random/mod.ts";
import { Lanes } from "../../src/wasm/assembler.ts";
import { inElementOrder, philox as philoxOnLanes } from "../../src/wasm/philox.ts";
import { assertOpAgrees } from "./inputs.ts";

const words = kernel({
  name: "philox_words",
  reads: { settings: i32(4) }, // the first counter, stream, offset, seed
  writes: { y: i32(32) },
  reference() {},
  cpu: {
    tasks: () => 1,
    emit(f, { settings, y }) {
      const v = new Lanes(f, 8), [first, stream, offset, seed] = [0, 1, 2, 3].map((i) => f.i32.load(settings, i));
      const counters = v.addI32(v.iota(), f.splatI32(first));
      inElementOrder(v, philoxOnLanes(f, stream, offset, seed)(v, counters)).forEach((part, i) =>
        v.store(y, 8 * i, part)
      );
    },
  },
});

Deno.test("philox: lanes compute the host's words, in the order of the elements", async () => {
  const device = await CpuDevice.create({ threads: 1, guards: true });
  for (
    const [first, stream, offset, seed] of [[0, 0, 0, 0], [7, 1, 2, 3], [
      2 ** 32 - 4,
      2 ** 32 - 1,
      2 ** 31,
      2 ** 32 - 1,
    ]]
  ) {
    const settings = device.tensor([first, stream, offset, seed], [4], { dtype: "i32" });
    const expected = Array.from({ length: 8 }, (_, i) => philox([first + i, stream, offset, 0], [seed, 0])).flat();
    assertEquals(Array.from(await launch(words, { settings }).y.data(), (word) => word >>> 0), expected);
  }
  device.close();
});

Deno.test("dropout: the CPU draws the reference's masks at odd sizes, on any number of threads", async () => {
  const exact = { atol: 0, rtol: 1.3e-7 }; // two roundings: of 1 / (1 − p), and of its product with x
  for (const n of [1, 3, 31, 32, 33, 64, 100_003]) {
    for (const p of [0.1, 0.5, 0.999]) {
      const options = { p, seed: 1337, offset: n, stream: 3 };
      const limits = { forward: exact, backward: { atol: 0, rtol: 2e-7 } };
      await assertOpAgrees(`${n}, p ${p}`, [{ shape: [n] }], (x) => dropout(x, options), limits);
    }
  }
});

Deno.test("dropout: elements are dropped with probability p, different ones for each seed, offset and stream", async () => {
  const device = await CpuDevice.create({ threads: 1 }), n = 100_000, p = 0.3;
  const kept = async (seed: number, offset: number, stream: number) => {
    const y = await dropout(device.tensor(new Float32Array(n).fill(1), [n]), { p, seed, offset, stream }).data();
    return Array.from(y, (value) => value !== 0);
  };
  const masks = [await kept(1, 1, 1), await kept(2, 1, 1), await kept(1, 2, 1), await kept(1, 1, 2)];
  for (const mask of masks) {
    const dropped = mask.filter((keeps) => !keeps).length;
    assert(Math.abs(dropped - n * p) < 5 * Math.sqrt(n * p * (1 - p)), `dropped ${dropped} of ${n}`);
  }
  for (let i = 0; i < masks.length; i++) {
    for (let j = 0; j < i; j++) {
      const equal = masks[i].filter((keeps, at) => keeps === masks[j][at]).length, share = p * p + (1 - p) * (1 - p);
      assert(
        Math.abs(equal - n * share) < 5 * Math.sqrt(n * share * (1 - share)),
        `masks ${i} and ${j} agree ${equal} times`,
      );
    }
  }
  device.close();
});

Deno.test("dropout: p of 0, p of 1, and invalid p", async () => {
  for (const device of [new ReferenceDevice(), await CpuDevice.create({ threads: 1 })]) {
    const x = device.tensor([1, -2, 3], [3], { requiresGrad: true }), rest = { seed: 1, offset: 0, stream: 0 };
    assert(dropout(x, { p: 0, ...rest }) === x);
    const y = dropout(x, { p: 1, ...rest });
    y.backward(device.tensor([1, 1, 1], [3]));
    assertEquals(Array.from(await y.data(), Math.abs), [0, 0, 0]);
    assertEquals([...await x.grad!.data()], [0, 0, 0]);
    for (const p of [-0.1, 1.5, NaN]) {
      assertThrows(() => dropout(x, { p, ...rest }), ConfigError, `Cannot apply dropout to [3]: p is ${p}`);
    }
    device.close();
  }
});

Deno.test("dropout: backward throws if the offset has changed since", () => {
  const device = new ReferenceDevice(), x = device.tensor([1, 2], [2], { requiresGrad: true });
  const offset = device.tensor([0], [1], { dtype: "i32" });
  const y = dropout(x, { p: 0.5, seed: 1, offset, stream: 0 });
  device.write(offset.storage, [1]);
  assertThrows(
    () => y.backward(device.tensor([1, 1], [2])),
    TypeError,
    "a tensor [1] that dropout had saved was changed",
  );
});
