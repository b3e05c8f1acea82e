/** The measures of policies: they are exact, and policies that are not near the optimum are rejected. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { ANSWERS, PROMPT, reference, rewards, worth } from "../../bench/letters.ts";
import {
  type Answers,
  divergence,
  enumerate,
  expectation,
  groupFixedPoint,
  isNear,
  judge,
  leafOf,
  leaves,
  logSumExp,
  optimalValue,
  optimum,
  tokensOf,
  tokenwise,
} from "../../examples/rlhf/optimum.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { logSoftmax } from "../../src/ops/mod.ts";

const logs = (...chances: number[]) => Float64Array.from(chances, Math.log);

Deno.test("optimum: four answers by hand", () => {
  const ref = logs(0.4, 0.3, 0.2, 0.1), reward = [0, 0, 1, 2], beta = 0.5;
  // exp(r / β) is 1, 1, e² and e⁴, and Z = 0.7 + 0.2 e² + 0.1 e⁴ = 7.6376.
  const best = optimum(ref, reward, beta);
  for (const [i, chance] of [0.0524, 0.0393, 0.1935, 0.7149].entries()) {
    assertAlmostEquals(Math.exp(best[i]), chance, 5e-5);
  }
  assertAlmostEquals(expectation(best, reward), 1.6232, 5e-5);
  assertAlmostEquals(divergence(best, ref), 1.2133, 5e-5);
  assertAlmostEquals(optimalValue(ref, reward, beta), 1.01654, 5e-6);
  const { share, distance } = judge(ref, { ref, reward, beta });
  assertAlmostEquals(share, 0.4 / 1.01654, 5e-6); // E r = 0.2 + 0.2, and no divergence
  assertAlmostEquals(beta * distance, 1.01654 - 0.4, 5e-6); // J* − J = β · KL(π ‖ π*)
});

Deno.test("optimum: eight letters, each worth 1 with probability 0.1", () => {
  // The number k of such letters has a binomial distribution, so J* = 8 β · log(0.9 + 0.1 exp(1 / β)).
  const choose = [1, 8, 28, 56, 70, 56, 28, 8, 1], counts = choose.map((_, k) => k);
  const ref = Float64Array.from(choose, (ways, k) => Math.log(ways * 0.1 ** k * 0.9 ** (8 - k)));
  const known = { 2: [1.239, 0.117], 1: [1.856, 0.587], 0.5: [3.607, 3.261], 0.3: [6.056, 9.712], 0.2: [7.543, 15.66] };
  for (const [beta, [reward, kl]] of Object.entries(known)) {
    const best = optimum(ref, counts, Number(beta));
    assertAlmostEquals(expectation(best, counts), reward, 5e-4);
    assertAlmostEquals(divergence(best, ref), kl, 5e-3);
  }
});

Deno.test("optimum: every answer that ends early has exactly one leaf", async () => {
  const answers: Answers = { vocabSize: 3, length: 4, end: 2 };
  assertEquals(tokensOf(leafOf([1, 0, 2], answers), answers), [1, 0, 2]);
  assertEquals(tokensOf(leafOf([1, 0, 1, 0], answers), answers), [1, 0, 1, 0]);
  using device = await createDevice("reference");
  const model = new GPT({ vocabSize: 3, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
  for (const weight of model.parameters()) {
    device.write(weight.storage, Array.from({ length: weight.size }, (_, i) => Math.sin(7 * i) / 2));
  }
  const prompt = [0, 1, 1], found = await enumerate(model, prompt, answers);
  // Two letters and an end: 1 + 2 + 4 + 8 answers end, and 16 do not.
  assertEquals(found.filter((log) => log > -Infinity).length, 1 + 2 + 4 + 8 + 16);
  assertAlmostEquals(logSumExp(found), 0, 1e-12);
  for (let leaf = 0; leaf < leaves(answers); leaf++) {
    const tokens = tokensOf(leaf, answers);
    if (found[leaf] === -Infinity) continue;
    let sum = 0;
    for (let t = 0; t < tokens.length; t++) { // token by token
      const ids = [...prompt, ...tokens.slice(0, t)], input = device.tensor(ids, [1, ids.length], { dtype: "i32" });
      const values = await noGrad(() => logSoftmax(model.forward(input).logits)).data();
      sum += values[tokens[t]];
    }
    assertAlmostEquals(found[leaf], sum, 1e-12);
  }
});

Deno.test("tokenwise: the exact gradients of GRPO's loss vanish at its policy, and not at the optimum", () => {
  // Two letters at three places, whose rewards depend on earlier letters: the optimum looks ahead.
  const answers: Answers = { vocabSize: 2, length: 3 }, beta = 0.4, group = 4;
  const ref = logs(0.30, 0.10, 0.05, 0.15, 0.04, 0.16, 0.08, 0.12), reward = Float64Array.of(0, 1, 0.5, 0, 2, 0, 0, 1);
  /** The mean gradient of a prefix's two logits; a token's penalty is k3 times its ratio. */
  const gradient = (policy: Float64Array, prefix: number[]) => {
    const total = (p: Float64Array, begin: number[]) => {
      const fits = (leaf: number) => begin.every((token, t) => tokensOf(leaf, answers)[t] === token);
      return p.reduce((sum, log, leaf) => fits(leaf) ? sum + Math.exp(log) : sum, 0);
    };
    const of = (p: Float64Array, a: number) => total(p, [...prefix, a]) / total(p, prefix);
    let sum = 0;
    policy.forEach((log, leaf) => {
      const tokens = tokensOf(leaf, answers), a = tokens[prefix.length];
      if (!prefix.every((token, t) => tokens[t] === token)) return;
      const d = Math.log(of(ref, a) / of(policy, a)), k3 = Math.exp(d) - d - 1;
      // d/dθ of ratio · A − β · ratio · k3, by d log π: A − β · (k3 + 1 − exp(d)). The group's mean contains the text itself.
      const advantage = (1 - 1 / group) * (reward[leaf] - expectation(policy, reward));
      sum += Math.exp(log) * (advantage - beta * (k3 + 1 - Math.exp(d))) * (Number(a === 0) - of(policy, 0));
    });
    return sum;
  };
  const prefixes = [[], [0], [1], [0, 0], [0, 1], [1, 0], [1, 1]];
  const rest = groupFixedPoint(ref, reward, { ...answers, beta, group, scaled: false });
  assertAlmostEquals(logSumExp(rest), 0, 1e-12);
  for (const prefix of prefixes) assertAlmostEquals(gradient(rest, prefix), 0, 1e-12);
  assert(prefixes.some((prefix) => Math.abs(gradient(optimum(ref, reward, beta), prefix)) > 1e-2));
  // At the last place both policies tilt the reference by exp(r / β); at earlier places only the optimum includes later
  // divergences.
  const both = [optimum(ref, reward, beta), tokenwise(ref, reward, { ...answers, beta })];
  const last = (p: Float64Array) => p[1] - p[0];
  assertAlmostEquals(last(both[0]), last(both[1]), 1e-12);
  assert(divergence(both[1], both[0]) > 1e-3);
});

Deno.test("groupFixedPoint: scaled advantages multiply β by the deviation of the rewards", () => {
  // One letter with three rewards and large groups: π ∝ ref · exp(r / (β σ)), where σ is the deviation of the rewards
  // under π.
  const answers: Answers = { vocabSize: 3, length: 1 }, ref = logs(0.5, 0.3, 0.2), reward = Float64Array.of(0, 1, 3);
  const beta = 0.8, rest = groupFixedPoint(ref, reward, { ...answers, beta, group: 200, scaled: true });
  const mean = expectation(rest, reward), deviation = Math.sqrt(expectation(rest, reward.map((r) => (r - mean) ** 2)));
  const expected = optimum(ref, reward, beta * deviation);
  for (let i = 0; i < 3; i++) assertAlmostEquals(Math.exp(rest[i]), Math.exp(expected[i]), 5e-3);
});

Deno.test("letters: isNear rejects a collapsed policy and a β that is 1.5 times too large or too small", async () => {
  using device = await createDevice("cpu", { threads: 1 });
  const model = await reference(device), ref = await enumerate(model, PROMPT, ANSWERS), reward = rewards();
  assertAlmostEquals(logSumExp(ref), 0, 1e-5);
  const first = [3, 1, 0, 2, 1, 1, 3, 3], leaf = leafOf(first, ANSWERS);
  assertAlmostEquals(worth(first), 1 + 0.6 + 0.2 + 0.6 + 0.6 + 1 + 1 + 1, 1e-12);
  assertAlmostEquals(reward[leaf], worth(first), 1e-12);
  const top = reward.indexOf(reward.reduce((a, b) => Math.max(a, b)));
  const collapsed = ref.map((_, leaf) => leaf === top ? 0 : -Infinity); // always the best string
  for (const beta of [1, 0.5, 0.3, 0.2]) {
    const judged = (policy: Float64Array) => judge(policy, { ref, reward, beta });
    const best = judged(optimum(ref, reward, beta));
    assertAlmostEquals(best.share, 1, 1e-9);
    assertAlmostEquals(best.distance, 0, 1e-9);
    assert(isNear(best));
    for (const other of [collapsed, ref, optimum(ref, reward, 1.5 * beta), optimum(ref, reward, beta / 1.5)]) {
      assert(!isNear(judged(other)), `β ${beta}: ${JSON.stringify(judged(other))}`);
    }
    // The fixed point of GRPO without scaling is near enough.
    assert(isNear(judged(groupFixedPoint(ref, reward, { ...ANSWERS, beta, group: 16, scaled: false }))));
  }
});
