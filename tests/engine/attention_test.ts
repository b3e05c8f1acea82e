import { assertGradient } from "./gradients.ts";
import { causalSelfAttention } from "../../src/ops/causal_self_attention.ts";

Deno.test("causal_self_attention: gradients are finite differences, with and without dropout", async () => {
  for (const [B, T, heads, width] of [[2, 3, 2, 2], [1, 5, 1, 3], [1, 1, 2, 1]]) {
    const shape = [B, T, 3 * heads * width];
    await assertGradient(shape, (x) => causalSelfAttention(x, heads), { what: `[${shape}]` });
    await assertGradient(shape, (x, device) => {
      const offset = device.tensor([5], [1], { dtype: "i32" });
      return causalSelfAttention(x, heads, { dropout: { p: 0.4, seed: 7, offset, stream: 3 } });
    }, { what: `[${shape}] with dropout` });
  }
});
