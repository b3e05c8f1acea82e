/**
 * Compares every op's gradients with central differences, (f(x + h) − f(x − h)) / 2h, in f64 on the reference device.
 * This check is independent of PyTorch's numbers and of the ops' derivative rules. It makes the calls of the golden
 * cases, so each op that has a golden case is checked here, too.
 */
import { assert } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import type { Fixture } from "../golden/fixtures.ts";
import { call, type OpCase, opFixtures, OPS } from "../golden/op_cases.ts";
import { assertClose } from "../testing.ts";

/**
 * h is STEP times |x|, where |x| is clamped to 0.01 to 1. Two errors are far below LIMIT: that of the differences,
 * which is of order h², and that of rounding f, which is 1e-16 / h.
 */
const STEP = 1e-5, LIMIT = { atol: 1e-7, rtol: 1e-7 };
/** Number of elements of each input that are varied, including the first and the last. */
const PROBES = 40;
const device = await createDevice("reference");

/**
 * A seed (the gradient of y) with values of size 0.5 to 1.5, large enough that a kink changes the slopes noticeably.
 */
const seedOf = (size: number) =>
  Array.from({ length: size }, (_, i) => (1 + 0.5 * Math.cos(3 + 2.3 * i * i)) * (i % 3 ? 1 : -1));

async function check(fixture: Fixture<OpCase>, test: OpCase): Promise<number> {
  const { leaves, forward } = call(device, fixture, test), inputs = [...leaves].filter(([, leaf]) => leaf.requiresGrad);
  const y = forward(), seed = seedOf(y.size), before = await y.data();
  // All inputs except the first start with a gradient of ones, as an earlier backward might have left it.
  for (const [, leaf] of inputs.slice(1)) leaf.grad = device.tensor(Array(leaf.size).fill(1), leaf.shape);
  y.backward(device.tensor(seed, y.shape));

  const run = (name: string, values: Float64Array) => {
    using _ = device.scope();
    return noGrad(() => call(device, fixture, test, new Map([[name, values]])).forward()).data();
  };
  /**
   * The change of f = Σ y · seed if the input `name` has the given values. Elements of y that do not change add exactly
   * 0, however large they are.
   */
  const change = async (name: string, values: Float64Array) => {
    const after = await run(name, values);
    return seed.reduce((sum, weight, i) => after[i] === before[i] ? sum : sum + weight * (after[i] - before[i]), 0);
  };
  let probed = 0;
  for (const [i, [name, leaf]] of inputs.entries()) {
    const values = Float64Array.from(fixture.get(name).values), count = Math.min(PROBES, values.length);
    assert(leaf.grad, `${name} has no gradient`);
    const gradient = await leaf.grad.data();
    for (let probe = 0; probe < count; probe++) {
      const j = Math.round(probe * (values.length - 1) / Math.max(1, count - 1)), x = values[j];
      if (!Number.isFinite(x)) continue;
      const h = STEP * Math.min(1, Math.max(0.01, Math.abs(x)));
      const [above, below] = [x + h === x ? x * (1 + STEP) : x + h, x + h === x ? x * (1 - STEP) : x - h];
      values[j] = above;
      const rise = await change(name, values);
      values[j] = below;
      const fall = await change(name, values);
      values[j] = x;
      const [right, left] = [rise / (above - x), fall / (below - x)], actual = gradient[j] - (i > 0 ? 1 : 0);
      // At a kink (equal elements of max, maximum) the slopes on the two sides differ, and any value between them is a
      // gradient.
      const kink = Math.abs(right - left) > 1e-3 * (1 + Math.abs(right) + Math.abs(left));
      const central = (rise - fall) / (above - below);
      const expected = kink ? Math.min(Math.max(actual, Math.min(left, right)), Math.max(left, right)) : central;
      assertClose(
        [actual],
        [expected],
        LIMIT,
        `${test.name}: gradient of ${name.split(".")[1]} at ${j}${kink ? ", a kink" : ""}`,
      );
      probed++;
    }
  }
  return probed;
}

const covered = new Set<string>();
for (const fixture of opFixtures()) {
  for (const test of fixture.cases) {
    Deno.test(`${test.name} agrees with finite differences`, async () => {
      assert(await check(fixture, test) > 0, "no element was moved");
    });
    covered.add(test.op);
  }
}

Deno.test("finite differences cover every op", () => {
  const missing = OPS.filter((op) => !covered.has(op));
  assert(missing.length === 0, `no case for ${missing}`);
});
