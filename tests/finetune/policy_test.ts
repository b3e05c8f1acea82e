/** Log-probabilities of tokens: alone and in batches, under the policy and under its reference. */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import type { Device } from "../../src/engine/device.ts";
import { ConfigError } from "../../src/errors.ts";
import { applyLora } from "../../src/finetune/lora.ts";
import {
  CapturedPasses,
  ReferencePolicy,
  rowArrays,
  type ScoredRow,
  Scorer,
  tokenLogprobs,
} from "../../src/finetune/policy.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, devices } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 24, vocabSize: 11, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0.3, bias: true };
const generator = new RandomGenerator(3);
const text = (length: number) => Int32Array.from({ length }, () => generator.randint(CONFIG.vocabSize));
const ROWS: ScoredRow[] = [[5, 1], [24, 20], [9, 3], [2, 1], [16, 15]].map(([length, from]) => ({
  ids: text(length),
  from,
}));
const newModel = (device: Device) => {
  const model = new GPT(CONFIG, { device, seed: 5 });
  for (const [name, { storage }] of model.namedParameters()) { // larger weights, so that no distribution is uniform
    if (name.endsWith("weight") && storage.length > 16) {
      device.fill(storage, (values) => generator.normal(values, 0, 0.3));
    }
  }
  return model;
};

/** The log-probabilities of a text's tokens, each computed from the logits of a separate pass. */
async function expected(model: GPT, { ids, from }: ScoredRow, temperature: number): Promise<number[]> {
  const { device } = model, found: number[] = [];
  model.eval();
  for (let at = from; at < ids.length; at++) {
    const { logits } = model.forward(device.tensor(ids.slice(0, at), [1, at], { dtype: "i32" }));
    const values = Array.from(await logits.data(), (logit) => logit / temperature);
    found.push(values[ids[at]] - Math.log(values.reduce((sum, logit) => sum + Math.exp(logit), 0)));
  }
  model.train();
  return found;
}

for (const { name, device } of await devices()) {
  Deno.test(`scores equal the log-probabilities of each text alone, also with a temperature (${name})`, async () => {
    const model = newModel(device);
    for (const temperature of [1, 0.7]) {
      using scorer = new Scorer(model, { batchSize: 2, maxLength: 24, temperature });
      for (const times of [1, 2]) { // the second pass is a replay
        const found = await scorer.logprobs(ROWS);
        assertEquals(found.map(({ length }) => length), ROWS.map(({ ids, from }) => ids.length - from));
        for (const [i, row] of ROWS.entries()) {
          const limit = { atol: 1e-5, rtol: 1e-5 };
          assertClose(found[i], await expected(model, row, temperature), limit, `row ${i}, ${times}, ${temperature}`);
        }
      }
    }
    assert(model.training);
    model.dispose();
  });

  Deno.test(`an update's log-probabilities have the bits of the scorer's, even if the config has dropout (${name})`, async () => {
    const model = newModel(device).train(), rows = ROWS.slice(0, 3), options = { batchSize: 3, maxLength: 24 };
    using scorer = new Scorer(model, options);
    const scored = await scorer.logprobs(rows);
    const { tokens, targets } = rowArrays(rows, { lengths: [24], batchSize: 3, vocabSize: CONFIG.vocabSize });
    const tensor = ({ values, shape }: typeof tokens) => device.tensor(values, shape, { dtype: "i32" });
    const { logprobs } = tokenLogprobs(model, { tokens: tensor(tokens), targets: tensor(targets) });
    assert(logprobs.requiresGrad);
    const values = Float32Array.from(await logprobs.data());
    for (const [i, { ids, from }] of rows.entries()) {
      assertEquals(values.slice(24 * i + from - 1, 24 * i + ids.length - 1), scored[i]);
    }
    logprobs.dispose();
    model.dispose();
  });

  Deno.test(`the reference is another model, or the policy with its adapter disabled, and does not change (${name})`, async () => {
    const model = newModel(device), options = { batchSize: 2, maxLength: 24 };
    using before = new Scorer(model, options);
    const base = await before.logprobs(ROWS), lora = applyLora(model, { rank: 2 });
    for (const [, { storage }] of lora.namedParameters()) {
      device.fill(storage, (values) => generator.normal(values, 0, 0.5));
    }
    using policy = new Scorer(model, options), off = new Scorer(new ReferencePolicy(model, lora), options);
    using late = new Scorer(new ReferencePolicy(model, () => lora), options);
    for (let times = 0; times < 2; times++) {
      assertNotEquals(await policy.logprobs(ROWS), base);
      assertEquals(await off.logprobs(ROWS), base);
      assertEquals(await late.logprobs(ROWS), base);
      assert(lora.enabled);
    }
    const other = newModel(device), reference = new ReferencePolicy(model, other);
    using own = new Scorer(other, options), through = new Scorer(reference, options);
    assertEquals(await through.logprobs(ROWS), await own.logprobs(ROWS));
    assertThrows(() => new ReferencePolicy(other, lora), ConfigError, "the adapter is on another model");
    const small = new GPT({ ...CONFIG, vocabSize: 7 }, { device });
    assertThrows(() => new ReferencePolicy(model, small), ConfigError, "vocabSize is 7, expected the policy's 11");
    for (const one of [model, other, small]) one.dispose();
  });

  Deno.test(`passes are captured once for each set of shapes, and use the module's current weights (${name})`, async () => {
    const model = newModel(device);
    let bodies = 0;
    using passes = new CapturedPasses(model, ({ tokens }) => {
      bodies++;
      return model.hidden(tokens);
    });
    const run = (...ids: number[]) =>
      passes.run({ tokens: { values: Int32Array.from(ids), shape: [1, ids.length], range: [0, 10] } });
    const first = await run(1, 2, 3);
    await run(1, 2);
    assertNotEquals(await run(1, 2, 4), first);
    assertEquals([await run(1, 2, 3), bodies], [first, 2]);
    applyLora(model, { rank: 2 });
    await run(1, 2, 3);
    assertEquals(bodies, 3);
    await assertRejects(() => run(1, 11), Error, "the data has 11 among its tokens; expected 0 to 10");
    model.dispose();
  });
}
