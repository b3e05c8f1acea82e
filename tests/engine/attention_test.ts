import { causalSelfAttention } from "../../src/ops/causal_self_attention.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertAgrees, outputAndGradient } from "./agree.ts";

const sizes = [[1, 1, 1, 1], [2, 3, 2, 5], [2, 64, 4, 32], [1, 65, 3, 25], [1, 130, 2, 64], [1, 300, 1, 20], [1, 70, 1, 256]];

Deno.test("causal_self_attention: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  for (const [B, T, heads, width] of sizes) {
    for (const p of [0, 0.3]) {
      await assertAgrees(`B ${B}, T ${T}, ${heads} heads of ${width}, dropout ${p}`, tolerances.attention, (device) =>
        outputAndGradient(device, [B, T, 3 * heads * width], (qkv) =>
          causalSelfAttention(qkv, heads, { dropout: { p, seed: 1337, offset: 9, stream: 2 } })));
    }
  }
});
