/**
 * Kernels that take each element once or a few times, at the sizes of nanoGPT's CPU setting (768 = 12 · 64 tokens, 128
 * wide), on one thread: what counts is the time an element. `deno bench bench/elementwise_bench.ts`.
 */
import { adamw } from "../kernels/adamw/kernel.ts";
import { dropout } from "../kernels/dropout/kernel.ts";
import { embeddingBackward, embeddingForward } from "../kernels/embedding/kernel.ts";
import { geluErf, geluTanh } from "../kernels/gelu/kernel.ts";
import { gradientNorm } from "../kernels/gradient_norm/kernel.ts";
import { layerNormBackwardInput, layerNormBackwardParams, layerNormForward } from "../kernels/layer_norm/kernel.ts";
import { sample } from "../kernels/sample/kernel.ts";
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
  for (let i = 0; i < 100; i++) run(); // until V8 has compiled it for good
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

const logits = random(1, 50_257),
  noise = random(1, 50_257),
  settings = { first: integers(1, 1), temperature: device.tensor([0.8], [1]), topK: device.tensor(Int32Array.of(200)) },
  next = integers(1, 1);
bench("sample of the top 200", 50_257, () => launch(sample, { logits, noise, ...settings, ids: next }));
