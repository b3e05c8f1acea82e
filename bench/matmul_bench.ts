/**
 * Measures matrix products, including packing and launch, at the sizes of nanoGPT's CPU setting (768 = 12 · 64 tokens,
 * 128 wide) and at larger sizes: `deno bench bench/matmul_bench.ts`. The rate is the number of GFLOP in a group's
 * title, divided by the time.
 */
import { noGrad } from "../src/engine/autograd.ts";
import { createDevice } from "../src/device/create.ts";
import { loadNative } from "../src/native/load.ts";
import { linear } from "../src/ops/linear.ts";
import { matmul } from "../src/ops/matmul.ts";
import { RandomGenerator } from "../src/random/mod.ts";

const device = await createDevice("cpu"), generator = new RandomGenerator(1337), native = await loadNative();
if (native.why) console.log(native.why);
const devices = native.tile ? { "": device, ", native": await createDevice("cpu", { native }) } : { "": device };

function random(shape: readonly number[], requiresGrad = false, on = device) {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  generator.normal(values, 0, 1);
  return on.tensor(values, shape, { requiresGrad });
}

// M×K×N: tokens, inputs, outputs.
for (
  const [M, K, N] of [
    [768, 128, 384],
    [768, 128, 128],
    [768, 128, 512],
    [768, 512, 128],
    [768, 128, 65],
    [512, 512, 512],
    [4096, 384, 1536],
  ]
) {
  const group = `${M}×${K}×${N}, ${(2e-9 * M * K * N).toPrecision(3)} GFLOP a product`;
  for (const [name, device] of Object.entries(devices)) {
    const [x, weight] = [[M, K], [N, K]].map((shape) => random(shape, true, device));
    const [right, dout] = [[K, N], [M, N]].map((shape) => random(shape, false, device));

    Deno.bench({ group, name: `matmul ${M}×${K}×${N}${name}` }, () => {
      using _ = device.scope();
      noGrad(() => matmul(x, right));
    });
    Deno.bench({ group, name: `linear ${M}×${K}×${N}${name}` }, () => {
      using _ = device.scope();
      noGrad(() => linear(x, weight));
    });
    Deno.bench({ group, name: `linear ${M}×${K}×${N}, forward and both gradients: three products${name}` }, () => {
      using _ = device.scope();
      linear(x, weight).backward(dout);
    });
  }
}

// One token, or four, times the weights of GPT-2's feed-forward layer. The speed of reading the weights limits these
// products.
for (const [M, K, N] of [[1, 768, 3072], [4, 768, 3072]]) {
  const x = random([M, K]), weight = random([N, K]);
  Deno.bench(`linear ${M}×${K}×${N}: reads ${(4e-6 * K * N).toPrecision(3)} MB of weights`, () => {
    using _ = device.scope();
    linear(x, weight);
  });
}
