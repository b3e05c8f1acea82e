import { assertGradient } from "./gradients.ts";
import { crossEntropy } from "../../src/ops/cross_entropy.ts";

Deno.test("cross_entropy: gradients are finite differences, with and without ignored rows", async () => {
  const targets = [2, 0, 4, 1, 3, 2];
  for (const ignoreIndex of [-100, 2]) {
    await assertGradient(
      [2, 3, 5],
      (x, device) => crossEntropy(x, device.tensor(targets, [2, 3], { dtype: "i32" }), { ignoreIndex }),
      { what: `ignoring ${ignoreIndex}` },
    );
  }
});
