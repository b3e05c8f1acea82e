/** What of ours is measured: products, the trainer's steps, the sampler's tokens. */
import { generate, GPT, type GPTConfig, RandomGenerator, Trainer } from "../mod.ts";
import { matmulNN, matmulNT, matmulTN } from "../kernels/matmul/kernel.ts";
import type { Device } from "../src/engine/device.ts";
import { launch } from "../src/engine/launch.ts";
import type { Run } from "./answer.ts";
import type { Product, Request } from "./measures.ts";

export interface Subject extends Disposable {
  run: Run;
}

/** Makes what is to be measured; disposed of, it frees it again. */
export function subject(device: Device, request: Request): Subject {
  if (request.kind === "product") return product(device, [request.form, request.M, request.K, request.N]);
  const { kind: _, ...config } = request;
  return request.kind === "decoding" ? decoding(device, config) : training(device, request);
}

const random = (length: number) => Float32Array.from({ length }, () => Math.random() - 0.5);

function product(device: Device, [form, M, K, N]: Product): Subject {
  const kernel = { NN: matmulNN, NT: matmulNT, TN: matmulTN }[form];
  const a = device.tensor(random(M * K), [1, ...(form === "TN" ? [K, M] : [M, K])]);
  const b = device.tensor(random(K * N), [1, ...(form === "NT" ? [N, K] : [K, N])]);
  const waited = device.tensor([0], [1]);
  let count = 1;
  // Reading costs Deno's WebGPU 11 ms, so many products share one wait; how many is found by doubling.
  const run: Run = async (seconds) => {
    for (;; count *= 2) {
      const begin = performance.now();
      for (let i = 0; i < count; i++) launch(kernel, { a, b }).c.dispose();
      await waited.data(); // comes after all that was launched before
      const passed = (performance.now() - begin) / 1000;
      if (passed >= seconds) return count / passed;
    }
  };
  return { run, [Symbol.dispose]: () => [a, b, waited].forEach((tensor) => tensor.dispose()) };
}

/** Training as the trainer does it, on random tokens. */
function training(device: Device, request: Request & { kind: "training" }): Subject {
  const { kind: _, batchSize, logInterval, ...config } = request;
  const generator = new RandomGenerator(1337), model = new GPT(config, { device, generator });
  const tokens = Int32Array.from({ length: 100_000 }, () => generator.randint(config.vocabSize));
  const long = { gradientAccumulationSteps: 1, maxIters: 1e9, evalInterval: 1e9, evalIters: 1 };
  const rates = { learningRate: 1e-3, beta2: 0.99 };
  const options = { batchSize, logInterval, ...long, ...rates, generator };
  const trainer = new Trainer(model, { train: tokens, val: tokens }, options);
  const events = trainer.run();
  /** Until the next loss is read, which waits for the device. @returns its iteration */
  const read = async () => {
    for (;;) {
      const { value } = await events.next();
      if (value?.kind === "step") return value.iter;
    }
  };
  let last = -1;
  const run: Run = async (seconds) => {
    // Where reading waits, losses come several at a time: then the first tells only that those before it are done.
    const first = device.readsAtOnce ? last : await read(), begin = performance.now();
    for (;;) {
      last = await read();
      const passed = (performance.now() - begin) / 1000;
      if (passed >= seconds) return (last - first) / passed;
    }
  };
  return {
    run,
    [Symbol.dispose]() {
      trainer.dispose();
      model.dispose();
    },
  };
}

/** As nanoGPT's sample.py draws. */
function decoding(device: Device, config: GPTConfig): Subject {
  const model = new GPT(config, { device }), maxNewTokens = config.blockSize - 1;
  const run: Run = async (seconds) => {
    const begin = performance.now();
    for (let count = 0;;) {
      for await (const _ of generate(model, [0], { maxNewTokens, temperature: 0.8, topK: 200 })) count++;
      const passed = (performance.now() - begin) / 1000;
      if (passed >= seconds) return count / passed;
    }
  };
  return { run, [Symbol.dispose]: () => model.dispose() };
}
