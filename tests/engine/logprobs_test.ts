import { assertEquals } from "@std/assert";
import { logprobs, logprobStatistics } from "../../src/ops/logprobs.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertClose, devices } from "../testing.ts";
import { assertAgrees, normal, outputAndGradient } from "./agree.ts";

Deno.test("logprobs: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  for (const [rows, V] of [[1, 1], [3, 7], [768, 65], [257, 33], [5, 5003]]) {
    const targets = Int32Array.from({ length: rows }, (_, row) => (row + 1) * 7919 % V);
    for (const options of [{}, { ignoreIndex: 0, temperature: 0.7 }]) {
      await assertAgrees(`[${rows},${V}]`, tolerances.softmax, (device) => {
        const ids = device.tensor(targets, [rows], { dtype: "i32" });
        const { entropy, mean, hit } = logprobStatistics(device.tensor(normal(rows * V), [rows, V]), ids, options);
        return [...outputAndGradient(device, [rows, V], (x) => logprobs(x, ids, options)), entropy, mean, hit];
      });
    }
  }
});

for (const { name, device } of await devices()) {
  Deno.test(`logprobs: entropy, mean and hits of rows are those computed by hand, and 0 for ignored rows (${name})`, async () => {
    // Three rows: equal probabilities; probabilities of ¼ and ¾; a row whose target is ignored.
    const values = [1, 1, 1, 1, 0, Math.log(3), -100, -100, 1, 2, 3, 6];
    const logits = device.tensor(values, [3, 4]), targets = device.tensor([2, 0, -1], [3], { dtype: "i32" });
    const found = logprobStatistics(logits, targets, { ignoreIndex: -1 }), ln = Math.log;
    const near = async (of: keyof typeof found, expected: number[]) =>
      assertClose(await found[of].data(), expected, { atol: 1e-6, rtol: 1e-6 }, of);
    await near("logprobs", [-ln(4), -ln(4), 0]);
    await near("entropy", [ln(4), ln(4) - 0.75 * ln(3), 0]);
    await near("mean", [1, (ln(3) - 200) / 4, 0]);
    assertEquals([...await found.hit.data()], [1, 0, 0]);
    const hot = logprobStatistics(logits, targets, { ignoreIndex: -1, temperature: 1e4 });
    assertClose(await hot.entropy.data(), [ln(4), ln(4), 0], { atol: 1e-3, rtol: 0 }, "nearly even at 10,000");
  });
}
