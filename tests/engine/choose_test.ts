import { assert, assertEquals } from "@std/assert";
import { BANNED, BY_STREAM, DAMAGED, recordOf, tablesOf } from "../../kernels/choose/record.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { choose } from "../../kernels/choose/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, devices } from "../testing.ts";
import { readFixture } from "../golden/fixtures.ts";
import { normal } from "./agree.ts";
import { chosen, type Row } from "./choosing.ts";

function exponential(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  new RandomGenerator(seed).exponential(out);
  return out;
}

const penalties = { repetitionPenalty: 1.3, presencePenalty: 0.4, frequencyPenalty: 0.2 };

/** Rows with many kinds of sampling options. */
function mixed(count: number, V: number, scale = 3): Row[] {
  const logits = normal(count * V).map((logit) => logit * scale), noise = exponential(count * V, 7);
  const some: SamplingOptions[] = [
    {},
    { temperature: 0 },
    { temperature: 0.8, topK: 40 },
    { topP: 0.9, ...penalties },
    { minP: 0.1, logitBias: { 0: 2, [V - 1]: -Infinity } },
    { temperature: 1.5, topK: 20, topP: 0.7, minP: 0.01, ...penalties },
    { temperature: 0, logitBias: { [V >> 1]: 9 }, ...penalties },
  ];
  return Array.from({ length: count }, (_, r) => ({
    logits: logits.subarray(r * V, (r + 1) * V),
    noise: noise.subarray(r * V, (r + 1) * V),
    seed: r % 3 ? r : undefined,
    position: 5 * r,
    tokens: Array.from({ length: r % 9 }, (_, i) => (7 * i + r) % V),
    prompt: r % 5,
    likely: [undefined, 0, 1, Math.min(V, 20)][r % 4],
    ...some[r % some.length],
  }));
}

const all = await devices();
Deno.test("choose: all devices choose what the reference chooses, the CPU on any number of threads", async () => {
  const reference = new ReferenceDevice(), gpus = all.filter(({ device }) => device.name === "webgpu");
  const cpus = await Promise.all([1, 2, 4].map((threads) => CpuDevice.create({ threads, guards: true })));
  for (const [R, V] of [[1, 1], [21, 2], [7, 9], [64, 65], [28, 257], [64, 300], [7, 50_257]]) {
    const rows = mixed(R, V), expected = await chosen(reference, rows);
    const [one, ...more] = await Promise.all(cpus.map((cpu) => chosen(cpu, rows)));
    for (const other of more) assertEquals(other, one);
    for (const actual of [one, ...await Promise.all(gpus.map(({ device }) => chosen(device, rows)))]) {
      assertEquals(actual.ids, expected.ids, `[${R}, ${V}]`);
      actual.likely.forEach((pairs, r) => {
        assertEquals(pairs.map(([id]) => id), expected.likely[r].map(([id]) => id));
        const logprobs = (of: number[][]) => of.map(([, logprob]) => logprob), limit = { atol: 1e-5, rtol: 1e-6 };
        assertClose(logprobs(pairs), logprobs(expected.likely[r]), limit, `row ${r} of [${R}, ${V}]`);
      });
    }
  }
  for (const device of [reference, ...cpus]) device.close();
});

for (const { name, device } of all) {
  const one = async (row: Row) => (await chosen(device, [row])).ids[0];

  Deno.test(`choose: frequencies follow the softmax of the allowed tokens, by noise and by stream (${name})`, async () => {
    const logits = [1, 2, 0, 2, -1, 0.5], V = 6, temperature = 0.7;
    const R = { webgpu: 2000, reference: 20_000 }[device.name] ?? 100_000; // software adapters are slow
    const cases: [SamplingOptions, number[]][] = [
      [{ temperature }, [0, 1, 2, 3, 4, 5]],
      [{ temperature, topK: 1 }, [1, 3]], // two tokens share the greatest score
      [{ temperature, topK: 3 }, [0, 1, 3]],
      [{ temperature, topP: 0.9 }, [0, 1, 3]], // probabilities: 0.098, 0.408 and 0.408
      [{ temperature, minP: 0.1 }, [0, 1, 3, 5]], // exp(−1.5 / 0.7) is 0.117
      [{ temperature, logitBias: { 1: -Infinity, 5: -Infinity } }, [0, 2, 3, 4]],
    ];
    for (const [options, kept] of cases) {
      const weights = logits.map((logit, i) => kept.includes(i) ? Math.exp(logit / temperature) : 0);
      const total = weights.reduce((a, b) => a + b), noise = exponential(V * R, 5);
      for (const way of ["noise", "stream"]) {
        const rows = Array.from({ length: R }, (_, r) => ({
          logits,
          ...options,
          ...way === "noise" ? { noise: noise.subarray(V * r, V * r + V) } : { seed: 77, position: r },
        }));
        const { ids } = await chosen(device, rows);
        let chi = 0;
        weights.forEach((weight, i) => {
          const count = ids.filter((id) => id === i).length, expected = R * weight / total;
          if (expected === 0) assertEquals(count, 0, `${JSON.stringify(options)}: ${i} by ${way}`);
          else chi += (count - expected) ** 2 / expected;
        });
        assert(chi < 20.5, `${JSON.stringify(options)} by ${way}: χ² is ${chi}`); // 5 degrees of freedom: 1 in 1000
      }
    }
  });

  Deno.test(`choose: a row has the same bits alone and among 64 rows (${name})`, async () => {
    for (const V of [65, 1000]) {
      const rows = mixed(64, V), together = await chosen(device, rows);
      for (const r of [0, 3, 5, 6, 19, 26, 40, 47, 63]) {
        assertEquals(await chosen(device, [rows[r]]), {
          ids: [together.ids[r]],
          likely: [together.likely[r]],
        }, `row ${r}`);
      }
    }
  });

  Deno.test(`choose: banned tokens are never drawn, with any stream or noise (${name})`, async () => {
    // One banned token is the last of the vocabulary; 200 banned tokens cover the last chunk of the running sum.
    for (const [V, banned] of [[5, 1], [300, 1], [700, 200]]) {
      const logitBias = Object.fromEntries(Array.from({ length: banned }, (_, i) => [V - 1 - i, -Infinity]));
      const noise = new Float32Array(V).fill(1).fill(1e-30, V - banned), logits = normal(V, 3);
      const rows = Array.from(
        { length: device.name === "webgpu" ? 100 : 2000 },
        (_, position) => ({ logits, logitBias, seed: 9, position }),
      );
      const { ids } = await chosen(device, [...rows, { logits, logitBias, noise }]);
      assert(ids.every((id) => id >= 0 && id < V - banned));
      assert(V > 5 || new Set(ids).size === V - banned);
    }
    // At these two positions the stream draws its greatest u, 1 − 2⁻²⁴, and its least, 0, which give the last and the
    // first allowed token.
    const logits = [0, 0.3, 0.1, 0.7, 0, 0.3], logitBias = { 0: -Infinity, 4: -Infinity, 5: -Infinity };
    for (const extra of [0.01, 0.3, 0.5, 0.9, 1.3]) {
      const row = { logits: logits.map((logit, i) => i === 2 ? logit + extra : logit), logitBias, seed: 1 };
      assertEquals(await one({ ...row, position: 6_405_057 }), 3);
      assertEquals(await one({ ...row, position: 10_254_132 }), 1);
    }
  });

  Deno.test(`choose: equals, infinities, and temperature 0 (${name})`, async () => {
    assertEquals(await one({ logits: [3, 5, 5, 4], temperature: 0 }), 1);
    assertEquals(await one({ logits: [3, 5, 5, 4] }), 1);
    assertEquals(await one({ logits: [3, 5, 5, 4], noise: [1, 2, 1, 1] }), 2);
    assertEquals(await one({ logits: [-1, -5, -0.5, -7], temperature: 0 }), 2);
    // Tokens with the logit −∞ are never drawn, even if their noise is the least, or if top-k allows more tokens than
    // have finite logits.
    assertEquals(await one({ logits: [-Infinity, -3, -Infinity], topK: 2, noise: [1e-30, 1, 1e-30] }), 1);
    assertEquals(await one({ logits: [0, -0, -1], topK: 1, noise: [2, 1, 1e-3] }), 1); // 0 = −0, so topK allows both
    assertEquals(await one({ logits: [-2, -1, -3, -1.5], topK: 2, noise: [1e-6, 5, 1e-6, 1] }), 3);
    assertEquals(await one({ logits: [-2, -1, -3, -1.5], topK: 3, noise: [1e-6, 5, 1e-6, 1] }), 0);
    // Among four equal scores, top-p leaves the tokens with the greatest ids.
    assertEquals(await one({ logits: [1, 1, 1, 1], topP: 0.5, noise: [1e-6, 1e-5, 2, 1] }), 3);
    assertEquals(await one({ logits: [1, 1, 1, 1], topP: 0, noise: [1e-6, 1e-5, 1e-4, 1] }), 3);
  });

  if (name !== "reference") { // the reference computes in f64, in which the scores differ
    Deno.test(`choose: topK treats logits as equal that are equal after the division (${name})`, async () => {
      const temperature = 3, ulp = 2 ** -23, quotient = (x: number) => Math.fround(x / temperature);
      const a = Array.from({ length: 100 }, (_, k) => 1.75 + k * ulp).find((x) => quotient(x) === quotient(x - ulp))!;
      const logits = [a - ulp, a, a - 8 * ulp], noise = [1e-3, 1, 1e-6];
      assertEquals(await one({ logits, temperature, topK: 1, noise }), 0);
      assertEquals(await one({ logits, temperature: 0, topK: 1, noise }), 1);
    });
  }

  Deno.test(`choose: damaged logits and bans of all tokens have different codes (${name})`, async () => {
    const bans = { 0: -Infinity, 1: -Infinity, 2: -Infinity };
    for (
      const options of [{}, { temperature: 0 }, { topK: 2 }, { topP: 0.9 }, { seed: 4 }, { ...penalties }, {
        likely: 1,
      }]
    ) {
      for (const wrong of [NaN, Infinity]) {
        for (const [V, at] of [[1, 0], [3, 1], [65, 64], [300, 150]]) {
          const logits = Array.from({ length: V }, (_, i) => i === at ? wrong : Math.sin(i));
          assertEquals(
            await one({ logits, ...options }),
            DAMAGED,
            `${wrong} at ${at} of ${V}, ${JSON.stringify(options)}`,
          );
        }
      }
      assertEquals(await one({ logits: [-Infinity, -Infinity, -Infinity], ...options }), DAMAGED);
      assertEquals(await one({ logits: [1, 0, 2], ...options, logitBias: bans }), BANNED, JSON.stringify(options));
    }
  });

  Deno.test(`choose: the chosen token counts in the next step, and the stream advances (${name})`, async () => {
    const logits = [3, 2.5, 2, 1], V = 4, ids: number[] = [];
    using scope = device.scope();
    const operands = {
        noise: device.tensor([1, 1, 1, 1], [1, V]),
        records: device.tensor(recordOf({ temperature: 0, frequencyPenalty: 0.7 }, 0), [1, recordOf({}).length]),
        state: device.tensor([1, 10, BY_STREAM, 0], [1, 4], { dtype: "i32" }),
        tables: device.tensor(tablesOf({}, { tokens: [0], prompt: 1 }, V), [1, 2, V]),
      },
      x = device.tensor(logits, [1, V]);
    const steps = Array.from({ length: 6 }, () => launch(choose, { logits: x, ...operands }).ids);
    for (const tensor of [...steps, operands.state, operands.tables]) scope.keep(tensor);
    scope[Symbol.dispose]();
    for (const step of steps) ids.push((await step.data())[0]);
    assertEquals(ids, [0, 1, 0, 2, 1, 0]); // with the scores 3, 2.5, 2.3, 2, 1.8, 1.6
    assertEquals([...await operands.state.data()], [1, 16, BY_STREAM, 6]);
    assertEquals([...await operands.tables.data()].slice(V), [3.5, 2, 1, 0]);
    for (const tensor of [...steps, operands.state, operands.tables]) tensor.dispose();
  });

  Deno.test(`choose: log-probabilities are log_softmax of the logits, with any other options (${name})`, async () => {
    const fixture = readFixture<{ name: string }>("ops_logSoftmax");
    let checked = 0;
    for (const [number, { name: what }] of fixture.cases.entries()) {
      const { values: logits, shape } = fixture.get(`${number}.a`), { values: expected } = fixture.get(`${number}.out`);
      const V = shape.at(-1)!;
      if (!what.endsWith(" axis -1")) continue;
      for (let r = 0; r * V < logits.length; r++) {
        const row = logits.subarray(r * V, (r + 1) * V), logprobs = expected.subarray(r * V, (r + 1) * V);
        const given = r % V,
          { likely: [pairs], ids } = await chosen(device, [
            { logits: row, given, likely: Math.min(V, 20), temperature: 0.5, topP: 0.3, tokens: [given] },
          ]);
        assertEquals([ids[0], pairs[0][0]], [given, given]);
        const limit = name === "reference" ? { atol: 1e-12, rtol: 1e-12 } : { atol: 1e-5, rtol: 1e-6 };
        assertClose(pairs.map(([, p]) => p), pairs.map(([id]) => logprobs[id]), limit, `case ${number}, row ${r}`);
        const descending = logprobs.toSorted().reverse().slice(0, pairs.length - 1);
        assertClose(pairs.slice(1).map(([, p]) => p), descending, limit, `case ${number}, row ${r}`);
        checked++;
      }
    }
    assert(checked > 5);
  });
}
