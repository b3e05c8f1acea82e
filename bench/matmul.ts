/** Prints `MxKxN GF/s`, the best of many products of each shape among the arguments; compare.py runs it beside PyTorch. */
import { createDevice } from "../mod.ts";
import { matmul } from "../src/ops/mod.ts";

const [threads, ...shapes] = Deno.args, device = await createDevice("cpu", { threads: Number(threads) });
for (const shape of shapes) {
  const [M, K, N] = shape.split("x").map(Number), flops = 2 * M * K * N;
  const random = (length: number) => Float32Array.from({ length }, () => Math.random() - 0.5);
  const a = device.tensor(random(M * K), [M, K]), b = device.tensor(random(K * N), [K, N]);
  let best = Infinity;
  for (let i = 0, until = performance.now() + 700; i < 50 || performance.now() < until; i++) {
    const begin = performance.now();
    matmul(a, b).dispose();
    best = Math.min(best, performance.now() - begin);
  }
  console.log(shape, flops / best / 1e6);
}
device.close();
