import { assert, assertEquals, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError, ShapeError } from "../../src/errors.ts";
import { sample } from "../../src/ops/sample.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertAgrees, normal } from "./agree.ts";

function exponential(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  new RandomGenerator(seed).exponential(out);
  return out;
}

Deno.test("sample: the CPU draws what the reference draws, on any number of threads", async () => {
  for (const [B, V] of [[1, 1], [3, 2], [7, 9], [64, 65], [5, 257], [3, 50_257]]) {
    for (const topK of [0, 1, 2, 40, V, V + 1]) {
      for (const temperature of [0, 0.8, 3]) {
        await assertAgrees(`[${B},${V}] top ${topK} at ${temperature}`, { atol: 0, rtol: 0 }, (device) => [
          sample(device.tensor(normal(B * V), [B, V]), device.tensor(exponential(B * V, 7), [B, V]), {
            temperature,
            topK,
          }),
        ]);
      }
    }
  }
});

const devices = [new ReferenceDevice(), await CpuDevice.create({ threads: 1, guards: true })];
for (const device of devices) {
  const draw = async (logits: number[], options: { temperature?: number; topK?: number }, noise: number[] = []) => {
    const V = logits.length, filled = Float32Array.from({ length: V }, (_, i) => noise[i] ?? 1);
    return (await sample(device.tensor(logits, [1, V]), device.tensor(filled, [1, V]), options).data())[0];
  };

  Deno.test(`sample: frequencies are softmax(logits / temperature) of the top k (${device.name})`, async () => {
    const logits = [1, 2, 0, 2, -1], temperature = 0.7, B = 20_000;
    // Three are among the two greatest: both with 2, and nothing else; with k = 3, the 1 as well.
    for (const [topK, kept] of [[0, [0, 1, 2, 3, 4]], [1, [1, 3]], [2, [1, 3]], [3, [0, 1, 3]]] as const) {
      const noise = device.tensor(exponential(5 * B, topK + 1), [B, 5]);
      const ids = await sample(device.tensor(Array(B).fill(logits).flat(), [B, 5]), noise, { temperature, topK })
        .data();
      const weights = logits.map((logit, i) => kept.some((at) => at === i) ? Math.exp(logit / temperature) : 0);
      const total = weights.reduce((a, b) => a + b);
      weights.forEach((weight, i) => {
        const p = weight / total, count = ids.filter((id) => id === i).length;
        assert(
          Math.abs(count - B * p) <= 5 * Math.sqrt(B * p * (1 - p)),
          `top ${topK}: ${i} came ${count} times of ${B}, p ${p}`,
        );
      });
    }
  });

  Deno.test(`sample: equals, infinities, and temperature 0 (${device.name})`, async () => {
    assertEquals(await draw([3, 5, 5, 4], { temperature: 0 }), 1);
    assertEquals(await draw([3, 5, 5, 4], {}), 1);
    assertEquals(await draw([3, 5, 5, 4], {}, [1, 2, 1, 1]), 2);
    assertEquals(await draw([-1, -5, -0.5, -7], { temperature: 0 }), 2);
    // Masked entries never come, though noise would choose them; also where k reaches down to them.
    assertEquals(await draw([-Infinity, -3, -Infinity], { topK: 2 }, [1e-30, 1, 1e-30]), 1);
    assertEquals(await draw([0, -0, -1], { topK: 1 }, [2, 1, 1e-3]), 1); // 0 and −0 are equal: both are kept
    assertEquals(await draw([-2, -1, -3, -1.5], { topK: 2 }, [1e-6, 5, 1e-6, 1]), 3);
    assertEquals(await draw([-2, -1, -3, -1.5], { topK: 3 }, [1e-6, 5, 1e-6, 1]), 0);
  });
}

Deno.test("sample: what cannot be is refused", () => {
  const [device] = devices, x = device.tensor([1, 2], [1, 2]);
  assertThrows(() => sample(x, x, { temperature: -1 }), ConfigError, "Cannot apply sample to [1,2]: temperature is -1");
  assertThrows(() => sample(x, x, { topK: 1.5 }), ConfigError, "Cannot apply sample to [1,2]: topK is 1.5");
  assertThrows(() => sample(x, device.tensor([1], [1, 1])), ShapeError, "noise is [1,1]");
});
