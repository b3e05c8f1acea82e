/** PPO: rewards, advantages, returns and the loss, computed by hand. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { adaptedKlCoef, generalizedAdvantages, returnsOf, tokenKl, whiten } from "../../src/finetune/returns.ts";
import { proximalLoss } from "../../src/finetune/ppo_loss.ts";
import { assertClose, openDevice } from "../testing.ts";

const EXACT = { atol: 1e-15, rtol: 1e-15 }, ROUNDED = { atol: 5e-7, rtol: 0 };
/** A text of three tokens, with a value for the position after them, too. */
const TEXT = { logprobs: [-1, -.5, -.25], reference: [-1.2, -.4, -.25], values: [.1, .2, .3, .4], score: 2 };

Deno.test("if the score is added one position after the end, rewards, advantages and returns are as in TRL", () => {
  const [{ kl, rewards, advantages, returns }] = returnsOf([TEXT]);
  assertClose(kl, [.2, -.1, 0], EXACT, "kl");
  assertClose(rewards, [-.01, .005, 0, 2], EXACT, "rewards");
  assertClose(returns, [1.75178, 1.844, 1.92, 2], { atol: 5e-5, rtol: 0 }, "returns");
  assertClose(advantages, [.796439, .325816, -1.122255], ROUNDED, "whitened advantages");
  const [{ advantages: plain }] = returnsOf([TEXT], { whitenAdvantages: false });
  assertClose(plain, [1.6518, 1.644, 1.62], ROUNDED, "advantages");
});

Deno.test("the score is added at the last token if there is no position after it", () => {
  const { values, ...text } = TEXT, [{ rewards, returns }] = returnsOf([{ ...text, values: values.slice(0, 3) }]);
  assertClose(rewards, [-.01, .005, 2], EXACT, "rewards");
  assertAlmostEquals(returns[2], 2, 1e-15);
});

Deno.test("advantages are sums of discounted errors", () => {
  const options = { gamma: .9, lambda: .5 }, advantages = generalizedAdvantages([1, 2], [.5, .25], options);
  const last = 2 - .25, first = 1 + .9 * .25 - .5;
  assertClose(advantages, [first + .45 * last, last], EXACT, "advantages");
});

Deno.test("k3 is exp(ref − log π) − 1 − (ref − log π)", () => {
  assertAlmostEquals(tokenKl([-1], [-1.5], "k3")[0], .1065307, 5e-8);
  assertAlmostEquals(tokenKl([-1], [-1.5], "k1")[0], .5, 1e-15);
});

Deno.test("whitening is over all texts together, and can keep the mean", () => {
  const lists = [Float64Array.of(1, 2), Float64Array.of(6)], deviation = Math.sqrt(7 + 1e-8); // the variance is (4 + 1 + 9) / 2
  assertClose(
    whiten(lists).flatMap((list) => [...list]),
    [-2 / deviation, -1 / deviation, 3 / deviation],
    EXACT,
    "all",
  );
  const kept = whiten(lists, { shiftMean: false }).flatMap((list) => [...list]);
  assertClose(kept, [3 - 2 / deviation, 3 - 1 / deviation, 3 + 3 / deviation], EXACT, "with their mean");
  assertEquals(whiten([Float64Array.of(5)]), [Float64Array.of(0)]);
});

Deno.test("an adaptive KL coefficient changes by at most a fifth of texts / horizon", () => {
  const options = { klCoef: .15, target: 6, horizon: 10000 };
  assertAlmostEquals(adaptedKlCoef(options, { kl: 60, texts: 512 }), .15 * (1 + .2 * .0512), 1e-15);
  assertAlmostEquals(adaptedKlCoef(options, { kl: 0, texts: 512 }), .15 * (1 - .2 * .0512), 1e-15);
  assertAlmostEquals(adaptedKlCoef(options, { kl: 6.6, texts: 512 }), .15 * (1 + .1 * .0512), 1e-15);
});

Deno.test("the loss of a token is the greater of its clipped and unclipped losses, and is weighted by its share", async () => {
  const device = await openDevice("reference");
  const row = (values: number[], requiresGrad = false) => device.tensor(values, [1, values.length], { requiresGrad });
  // The ratio 1.5 with A = 2 is clipped; the ratio 0.5 with A = 1 is not; the third token is ignored.
  const logprobs = row([Math.log(1.5), Math.log(.5), 7], true), values = row([1, .1, 9], true), zeros = row([0, 0, 0]);
  const { loss, outputs } = proximalLoss(
    { logprobs, values, entropy: row([.25, .75, 5]) },
    {
      logprobs: zeros,
      values: zeros,
      advantages: row([2, 1, 3]),
      returns: row([1, 1, 0]),
      policyShares: row([.5, .5, 0]),
      valueShares: row([.5, .5, 0]),
    },
  );
  const policy = .5 * -2 * 1.2 + .5 * -.5, value = .5 * (.5 * (.2 - 1) ** 2 + .5 * (.1 - 1) ** 2);
  const kl = .25 * (Math.log(1.5) ** 2 + Math.log(.5) ** 2);
  assertClose(await outputs.data(), [policy, value, kl, .5, .5, .5, 1], EXACT, "measures");
  assertAlmostEquals(await loss.item(), policy + .1 * value, 1e-15);
  loss.backward();
  assertClose(await logprobs.grad!.data(), [0, -.25, 0], EXACT, "d loss / d log π");
  assertClose(await values.grad!.data(), [0, .1 * .5 * (.1 - 1), 0], EXACT, "d loss / d v");
});
