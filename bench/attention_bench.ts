/**
 * Measures causal self-attention at the sizes of nanoGPT's models, and one token's attention to a full cache: `deno
 * bench bench/attention_bench.ts`. To convert a time to a rate: attention has 2 products forward and 5 backward, and
 * each takes B · heads · T · (T + 1) · width floating-point operations, because half of the scores are masked.
 */
import { CpuDevice } from "../src/device/cpu.ts";
import { causalSelfAttention } from "../src/ops/causal_self_attention.ts";
import { cachedAttention } from "../src/ops/cached_attention.ts";
import { noGrad } from "../src/engine/autograd.ts";

const device = await CpuDevice.create({ threads: 2 });
const random = (length: number) => Float32Array.from({ length }, () => Math.random() - 0.5);

// B, T, heads, width: the CPU setting, the baby GPT, GPT-2 124M.
for (const [B, T, heads, width] of [[12, 64, 4, 32], [4, 256, 6, 64], [1, 1024, 12, 64]]) {
  const C = heads * width, name = `B ${B}, T ${T}, ${heads} heads of ${width}`;
  const qkv = device.tensor(random(B * T * 3 * C), [B, T, 3 * C], { requiresGrad: true });
  const dout = device.tensor(random(B * T * C), [B, T, C]);
  const offset = device.tensor([0], [1], { dtype: "i32" });
  const forward = (p: number) => causalSelfAttention(qkv, { heads, dropout: { p, seed: 1, offset, stream: 0 } });
  const group = name;
  Deno.bench({ name: `forward, ${name}`, group, baseline: true }, () => {
    using _ = device.scope();
    noGrad(() => forward(0));
  });
  for (const p of [0, 0.1]) {
    Deno.bench({ name: `forward and backward, dropout ${p}, ${name}`, group }, () => {
      using _ = device.scope();
      forward(p).backward(dout);
    });
  }
}

for (const [S, heads, width] of [[256, 6, 64], [1024, 12, 64]]) {
  const qkv = device.tensor(random(3 * heads * width), [1, 1, 3 * heads * width]);
  const cache = device.tensor(random(S * 2 * heads * width), [1, heads, S, 2, width]);
  const places = { slot: device.tensor(Int32Array.of(0)), position: device.tensor(Int32Array.of(S - 1)) };
  Deno.bench(`one token after ${S - 1}, ${heads} heads of ${width}`, () => {
    using _ = device.scope();
    noGrad(() => cachedAttention(qkv, cache, places));
  });
}
