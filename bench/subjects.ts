/**
 * What benchmarks measure in this library: products, training steps, decoding, many texts at once, and reading memory.
 */
import { generate, GPT, type GPTConfig, type GPTOptions, RandomGenerator, Rows, Storage, Trainer } from "../mod.ts";
import { matmulNN, matmulNT, matmulTN } from "../kernels/matmul/kernel.ts";
import type { Device } from "../src/engine/device.ts";
import { launch } from "../src/engine/launch.ts";
import { applyLora } from "../src/finetune/lora.ts";
import { repeated, type Run } from "./answer.ts";
import type { Product, Request, RowsRequest } from "./measures.ts";
import { readMemory, STREAMS } from "./read_memory.ts";

export interface Subject extends Disposable {
  run: Run;
}

/** Makes the subject that a request asks for. Disposing of the subject frees its memory. */
export function subject(device: Device, request: Request): Subject {
  if (request.kind === "product") return product(device, [request.form, request.M, request.K, request.N]);
  if (request.kind === "memory") return memory(device, request);
  if (request.kind === "rows") return rows(device, request);
  const { kind: _, ...config } = request;
  return request.kind === "decoding" ? decoding(device, config as GPTConfig) : training(device, request);
}

const random = (length: number) => Float32Array.from({ length }, () => Math.random() - 0.5);

function product(device: Device, [form, M, K, N]: Product): Subject {
  const kernel = { NN: matmulNN, NT: matmulNT, TN: matmulTN }[form];
  const a = device.tensor(random(M * K), [1, ...(form === "TN" ? [K, M] : [M, K])]);
  const b = device.tensor(random(K * N), [1, ...(form === "NT" ? [N, K] : [K, N])]);
  const waited = device.tensor([0], [1]);
  let count = 1;
  // A read takes 11 ms in Deno's WebGPU, which is shared by a number of products. The number is doubled until they take
  // long enough.
  const run: Run = async (seconds) => {
    for (;; count *= 2) {
      const begin = performance.now();
      for (let i = 0; i < count; i++) launch(kernel, { a, b }).c.dispose();
      await waited.data(); // waits for all launches
      const passed = (performance.now() - begin) / 1000;
      if (passed >= seconds) return count / passed;
    }
  };
  return { run, [Symbol.dispose]: () => [a, b, waited].forEach((tensor) => tensor.dispose()) };
}

/** Steps of the trainer on random tokens. */
function training(device: Device, request: Request & { kind: "training" | "adapter" }): Subject {
  const { kind: _, batchSize, logInterval, rank, ...config } = { rank: undefined, ...request };
  const generator = new RandomGenerator(1337), model = new GPT(config, { device, generator });
  if (rank !== undefined) applyLora(model, { rank });
  const tokens = Int32Array.from({ length: 100_000 }, () => generator.randint(config.vocabSize));
  const long = { gradientAccumulationSteps: 1, maxIters: 1e9, evalInterval: 1e9, evalIters: 1 };
  const rates = { learningRate: 1e-3, beta2: 0.99 };
  const options = { batchSize, logInterval, ...long, ...rates, generator };
  const trainer = new Trainer(model, { train: tokens, val: tokens }, options);
  const events = trainer.run();
  /**
   * Trains until the next loss is read, which waits for the device.
   *
   * @returns the iteration whose loss was read
   */
  const read = async () => {
    for (;;) {
      const { value } = await events.next();
      if (value?.kind === "step") return value.iter;
    }
  };
  let last = -1;
  const run: Run = async (seconds) => {
    // On devices where a read blocks, several losses arrive at a time. There, the first read only shows that all
    // earlier steps are done, and the time begins after it.
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

/** Decoding with the sampling of nanoGPT's sample.py. */
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

/** A model for generation, with random weights: they take as much time and memory as trained weights. */
export function randomModel(device: Device, config: Partial<GPTConfig>, weights: GPTOptions["weights"]): GPT {
  const model = new GPT(config, { device, weights, inference: true, initialize: false }).eval();
  const numbers = new Float32Array(2 ** 20);
  new RandomGenerator(1337).normal(numbers, 0, 0.02);
  for (const { storage: { block, offset, length } } of model.parameters()) {
    for (let at = 0; at < length; at += numbers.length) {
      const part = numbers.subarray(0, length - at);
      device.write(new Storage(block, part.length, offset + at), part);
    }
  }
  return model;
}

/**
 * Generates many texts at once, greedily, which needs no random numbers. The first token of each text is not counted,
 * because it comes with reading the prompt.
 */
function rows(device: Device, { kind: _, gguf: _gguf, ...request }: RowsRequest): Subject {
  const { rows: slots, prompt: length, tokens, weights, ...config } = request;
  const model = randomModel(device, config, weights), texts = new Rows(model, { slots, piece: slots * length });
  const prompts = Array.from(
    { length: slots },
    (_, row) => Array.from({ length }, (_, i) => (31 * row + i) % config.vocabSize),
  );
  const write = async () => {
    let begun = 0, begin = 0;
    await Promise.all(prompts.map(async (prompt) => {
      const row = texts.add({ prompt, maxNewTokens: tokens, temperature: 0, overflow: "refuse" });
      for await (const _ of row) {
        if (row.tokens.length === length + 1 && ++begun === slots) begin = performance.now();
      }
    }));
    return (performance.now() - begin) / 1000;
  };
  const run: Run = async (seconds) => {
    for (let passed = 0, count = 0;;) {
      passed += await write();
      count += slots * (tokens - 1);
      if (passed >= seconds) return count / passed;
    }
  };
  return {
    run,
    [Symbol.dispose]() {
      texts[Symbol.dispose]();
      model.dispose();
    },
  };
}

function memory(device: Device, { bytes, threads }: Request & { kind: "memory" }): Subject {
  const rows = STREAMS * threads, values = device.empty([rows, Math.floor(bytes / 4 / rows)]);
  const waited = device.tensor([0], [1]);
  device.fill(values.storage, (numbers) => numbers.fill(1));
  const run = repeated(async () => {
    launch(readMemory, { values }).sums.dispose();
    await waited.data();
  });
  return { run, [Symbol.dispose]: () => [values, waited].forEach((tensor) => tensor.dispose()) };
}
