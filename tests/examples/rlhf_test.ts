/** The RLHF example: the world of tunes, its listener, and a short run of all steps. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { choices, hiddenListener, preferences, rankings } from "../../examples/rlhf/listener.ts";
import { report } from "../../examples/rlhf/report.ts";
import { rlhf, SIZES } from "../../examples/rlhf/rlhf.ts";
import { leafOf, tokensOf } from "../../examples/rlhf/optimum.ts";
import { ANSWERS, END, taste, texts, tokenizer, tune, uniforms } from "../../examples/rlhf/tunes.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";

Deno.test("tunes: the taste by hand, and typical tunes rarely leap", () => {
  // The notes are c d e g a: c to e is a leap, and e to g is a step.
  const known = {
    "c.": 0,
    "cdc.": 2,
    "ceg.": 1.5,
    "cec.": 2 + 3,
    "cecec.": 2 + 6 - 6,
    "dec.": -2 + 1.5 + 2,
    "cdcdcd": -2,
  };
  for (const [answer, worth] of Object.entries(known)) assertEquals(taste("c.", answer), worth, answer);
  assertEquals(END, 0);
  const answer = texts[leafOf(tokenizer.encode("cdgdc."), ANSWERS)];
  assertEquals([answer, tokenizer.decode(tokensOf(texts.indexOf("e."), ANSWERS))], ["cdgdc.", "e."]);
  const draw = uniforms(5), tunes = Array.from({ length: 20_000 }, () => tune(draw));
  const leaps = tunes.filter((one) => taste(`${one[0]}.`, `${one}.`) % 1 !== 0 || /ce|ca|ga?c/.test(one)).length;
  assert(leaps < 0.4 * tunes.length);
  // Each of the five notes is the first one with probability 1/5.
  assertAlmostEquals(tunes.filter(([first]) => first === "g").length / 20_000, 0.2, 4 * Math.sqrt(0.16 / 20_000));
});

Deno.test("listener: chooses with Bradley and Terry's probability, and rows have the chosen answer first", async () => {
  const listen = hiddenListener(uniforms(6)), count = 20_000;
  let first = 0;
  for (let i = 0; i < count; i++) first += Number(await listen("c.", ["cdc.", "ceg."]) === 0);
  assertAlmostEquals(first / count, 1 / (1 + Math.exp(1.5 - 2)), 4 * Math.sqrt(0.25 / count));

  using device = await createDevice("cpu", { threads: 1 });
  const policy = new GPT({ vocabSize: 6, blockSize: 16, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
  const found = await choices(policy, { count: 70, seed: 1, listener: () => Promise.resolve(1) });
  assertEquals(found.length, 70);
  assertEquals(new Set(found.map(({ prompt }) => prompt)).size, 5);
  for (const { prompt, chosen, rejected } of found) {
    assertEquals(tokenizer.decode(chosen.ids.subarray(0, chosen.from)), prompt);
    assert(`${chosen.ids}` !== `${rejected.ids}`);
  }
  const pairs = preferences(found), ranked = rankings(found);
  assertEquals([pairs.length, ranked.length], [140, 70]);
  assertEquals([pairs.row(6).ids, ranked.sequences(3)[0]], [found[3].chosen.ids, found[3].chosen.ids]);
  assertEquals(Array.from(pairs.row(7).learned.subarray(0, 3)), [0, 0, 1]);
  let asked = 0; // undefined ends the questions
  const some = await choices(policy, {
    count: 70,
    seed: 1,
    listener: () => Promise.resolve(asked++ < 4 ? 0 : undefined),
  });
  assertEquals(some.length, 4);
});

Deno.test("rlhf: no policy is above the optimum, and the page shows every run", async () => {
  using device = await createDevice("cpu");
  const work = {
    pretraining: 40,
    instructions: 20,
    choices: 200,
    heldOut: 100,
    epochs: { reward: 1, dpo: 1 },
    effort: 0.02,
  };
  const outcome = await rlhf(device, {
    sizes: { ...SIZES, ...work, betas: [0.5], prompts: 2, looks: 1 },
    note: () => {},
  });
  const { results, curves, first, accuracy } = outcome;
  assertEquals(results.map(({ method }) => method), [
    ...["PPO", "RLOO", "GRPO", "DPO", "PPO with a penalty", "PPO without a penalty"],
  ]);
  assertAlmostEquals(first.kl, 0, 1e-9);
  assert(accuracy.best > 0.5 && accuracy.model > 0.3);
  // For every β from 4 down, a policy's E r − β · KL is at most the value of π*.
  for (const [i, best] of curves.model.entries()) {
    const beta = 4 * 0.82 ** i;
    for (const one of [...results, ...results.flatMap(({ way }) => way), ...curves.grpo]) {
      assert(one.model - beta * one.kl <= best.model - beta * best.kl + 1e-6);
    }
  }
  assertEquals(results.map(({ way }) => way.length), [0, 0, 0, 0, 3, 3]);
  const html = report(outcome);
  for (const { method } of results) assertStringIncludes(html, method);
  assertEquals(html.match(/<svg/g)?.length, 3);
  assertEquals(html.match(/NaN/g), null);
});
