/**
 * Measures kernels that read each element once or a few times, on one thread, at the sizes of nanoGPT's CPU setting
 * (768 = 12 · 64 tokens, 128 wide): `deno bench bench/elementwise_bench.ts`. To compare kernels, divide a time by the
 * number of elements in its title.
 */
import { adamw } from "../kernels/adamw/kernel.ts";
import { dropout } from "../kernels/dropout/kernel.ts";
import { embeddingBackward, embeddingForward } from "../kernels/embedding/kernel.ts";
import { geluErf, geluTanh } from "../kernels/gelu/kernel.ts";
import { gradientNorm } from "../kernels/gradient_norm/kernel.ts";
import { layerNormBackwardInput, layerNormBackwardParams, layerNormForward } from "../kernels/layer_norm/kernel.ts";
import { choose } from "../kernels/choose/kernel.ts";
import { BY_NOISE, BY_STREAM, recordFields, recordOf, tablesOf } from "../kernels/choose/record.ts";
import { createDevice } from "../src/device/create.ts";
import { launch } from "../src/engine/launch.ts";
import { RandomGenerator } from "../src/random/mod.ts";

const rows = 768, C = 128, V = 65, n = rows * C;
const device = await createDevice("cpu", { threads: 1 }), generator = new RandomGenerator(1337);

function random(...shape: number[]) {
  const values = new Float32Array(shape.reduce((a, b) => a * b));
  generator.normal(values, 0, 1);
  return device.tensor(values, shape);
}
function integers(high: number, ...shape: number[]) {
  const values = Int32Array.from({ length: shape.reduce((a, b) => a * b) }, () => generator.randint(high));
  return device.tensor(values, shape, { dtype: "i32" });
}
function bench(name: string, elements: number, run: () => unknown) {
  for (let i = 0; i < 100; i++) run(); // until V8 has optimized it
  Deno.bench(`${name}, ${elements} elements`, () => void run());
}

const x = random(rows, C), y = random(rows, C), dy = random(rows, C), dx = random(rows, C);
const [flat, flatY, flatDy, flatDx] = [x, y, dy, dx].map((tensor) => tensor.alias([n]));

const weight = random(C),
  bias = random(C),
  mean = random(rows),
  rstd = random(rows),
  dweight = random(C),
  dbias = random(C);
const statistics = { mean, rstd };
bench("layer norm", n, () => launch(layerNormForward, { x, weight, bias, y, ...statistics }, { epsilon: 1e-5 }));
bench("layer norm, to the input", n, () => launch(layerNormBackwardInput, { dy, x, weight, ...statistics, dx }));
bench(
  "layer norm, to the parameters",
  n,
  () => launch(layerNormBackwardParams, { dy, x, ...statistics, dweight, dbias }),
);

for (const [name, { forward, backward }] of Object.entries({ erf: geluErf, tanh: geluTanh })) {
  bench(`GELU (${name})`, n, () => launch(forward, { x: flat, y: flatY }));
  bench(`GELU (${name}), backward`, n, () => launch(backward, { dy: flatDy, x: flat, dx: flatDx }));
}

const ids = integers(V, rows), table = random(V, C), dtable = random(V, C);
bench("embedding", n, () => launch(embeddingForward, { ids, weight: table, y }));
bench("embedding, backward", n, () => launch(embeddingBackward, { ids, dy, weight: table, dweight: dtable }));

const offset = integers(9, 1), mask = { seed: 1337, stream: 0, threshold: 2 ** 22, gain: 4 / 3 };
bench("dropout", n, () => launch(dropout, { x: flat, offset, y: flatY }, mask));

const norm = random(1), step = device.tensor([1, 1e-9, 1, 1], [4]), [parameter, m, v] = [0, 1, 2].map(() => random(n));
const hyper = { decayed: n / 2, gain1: 0.1, beta2: 0.99, gain2: 0.01, epsilon: 1e-8 };
device.write(v.storage, new Float32Array(n).fill(1));
bench("gradient norm", n, () => launch(gradientNorm, { gradient: flat, norm }));
bench("AdamW", n, () => launch(adamw, { gradient: flat, norm, step, parameter, m, v }, hyper));

const logits = random(1, 50_257), noise = random(1, 50_257), seen = { tokens: [1, 2, 3, 2], prompt: 1 };
const tables = device.tensor(tablesOf({}, seen, 50_257), [1, 2, 50_257]);
for (
  const [what, way, options] of [
    ["noise, of the top 200", BY_NOISE, { temperature: 0.8, topK: 200 }],
    ["stream, top-p and penalties", BY_STREAM, { topP: 0.9, repetitionPenalty: 1.2, frequencyPenalty: 0.5 }],
  ] as const
) {
  const records = device.tensor([recordOf(options, 0)], [1, recordFields.length]);
  const state = device.tensor(Int32Array.of(1, 0, way, 0), [1, 4]), next = integers(1, 1);
  bench(`choose by ${what}`, 50_257, () => launch(choose, { logits, noise, records, state, tables, ids: next }));
}
