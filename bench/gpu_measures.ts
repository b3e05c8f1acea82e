/** What gpu.ts measures of ours, and what it asks bench/pytorch_gpu.py for beside it. */
import { generate, Generator, GPT, type GPTConfig, Trainer, type TrainerOptions } from "../mod.ts";
import { matmulNN, matmulNT, matmulTN } from "../kernels/matmul/kernel.ts";
import type { Device } from "../src/device/device.ts";
import { launch } from "../src/launch.ts";

/** Works for some seconds, waits for the device, and tells how many pieces a second that made: products, steps, tokens. */
export type Run = (seconds: number) => Promise<number>;

export interface Measure {
  readonly name: string;
  readonly unit: "GF/s" | "tokens/s" | "steps/s";
  /** Units in a piece. */
  readonly work: number;
  /** Makes what is to be measured; disposed of, it frees it again. */
  ours(device: Device): { run: Run } & Disposable;
  readonly theirs: Readonly<Record<string, unknown>>;
}

export interface Setting {
  readonly name: string;
  readonly model: GPTConfig;
  readonly trainer: Partial<TrainerOptions> & { readonly batchSize: number };
}

const FORMS = { NN: matmulNN, NT: matmulNT, TN: matmulTN };
export type Product = readonly [form: keyof typeof FORMS, M: number, K: number, N: number];

const random = (length: number) => Float32Array.from({ length }, () => Math.random() - 0.5);

/** A product of f32 matrices; N marks an operand as it stands, T a transposed one. */
export function product([form, M, K, N]: Product): Measure {
  const tensors = (device: Device) => {
    const a = device.tensor(random(M * K), [1, ...(form === "TN" ? [K, M] : [M, K])]);
    const b = device.tensor(random(K * N), [1, ...(form === "NT" ? [N, K] : [K, N])]);
    return { a, b, waited: device.tensor([0], [1]) };
  };
  return {
    name: `matmul ${form} ${M}×${K}×${N}`,
    unit: "GF/s",
    work: 2e-9 * M * K * N,
    theirs: { kind: "product", form, M, K, N },
    ours(device) {
      const { a, b, waited } = tensors(device);
      let count = 1;
      // Reading costs Deno's WebGPU 11 ms, so many products share one wait; how many is found by doubling.
      const run: Run = async (seconds) => {
        for (;; count *= 2) {
          const begin = performance.now();
          for (let i = 0; i < count; i++) launch(FORMS[form], { a, b }).c.dispose();
          await waited.data(); // comes after all that was launched before
          const passed = (performance.now() - begin) / 1000;
          if (passed >= seconds) return count / passed;
        }
      };
      return { run, [Symbol.dispose]: () => [a, b, waited].forEach((tensor) => tensor.dispose()) };
    },
  };
}

/** Training as the trainer does it, on random tokens: forward, backward, clipping, AdamW, and the next batch. */
export function training({ name, model: config, trainer: options }: Setting, unit: "tokens/s" | "steps/s"): Measure {
  const { batchSize } = options;
  return {
    name: `training, ${name}`,
    unit,
    work: unit === "steps/s" ? 1 : batchSize * config.blockSize,
    theirs: { kind: "training", batchSize, ...config },
    ours(device) {
      const generator = new Generator(1337), model = new GPT(config, { device, generator });
      const tokens = Int32Array.from({ length: 100_000 }, () => generator.randint(config.vocabSize));
      const long = { maxIters: 1e9, evalInterval: 1e9, evalIters: 1, logInterval: 10 };
      const trainer = new Trainer(model, { train: tokens, val: tokens }, { ...options, ...long, generator });
      const events = trainer.run();
      /** Until the next loss is read, which waits for the device. @returns its iteration */
      const read = async () => {
        for (;;) {
          const { value } = await events.next();
          if (value?.kind === "step") return value.iter;
        }
      };
      const run: Run = async (seconds) => {
        const first = await read(), begin = performance.now();
        for (;;) {
          const steps = await read() - first, passed = (performance.now() - begin) / 1000;
          if (passed >= seconds) return steps / passed;
        }
      };
      return {
        run,
        [Symbol.dispose]() {
          trainer.dispose();
          model.dispose();
        },
      };
    },
  };
}

/** One sequence from one token up to the block size, again and again, as nanoGPT's sample.py draws it. */
export function decoding({ name, model: config }: Setting): Measure {
  return {
    name: `decoding, ${name}`,
    unit: "tokens/s",
    work: 1,
    theirs: { kind: "decoding", batchSize: 1, ...config },
    ours(device) {
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
    },
  };
}
