/** Programs captured from a model: every kind of change to the model drops them, and nothing else does. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import { GPT } from "../../src/gpt.ts";
import { generate } from "../../src/generate/generate.ts";
import { Captured } from "../../src/nn/captured.ts";
import { LayerNorm, Linear, Module } from "../../src/nn/mod.ts";
import { mul } from "../../src/ops/mod.ts";
import type { AdamW } from "../../src/optim/adamw.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";

const CONFIG = { blockSize: 8, vocabSize: 11, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0.3 };
const RATES = { weightDecay: 0.1, learningRate: 1e-2, betas: [0.9, 0.99] } as const;

/** A layer with a part that a field switches on and off. */
class Switched extends Module {
  enabled = true;
  readonly norm: LayerNorm;
  readonly #factor: Tensor;
  constructor(device: Device) {
    super();
    this.norm = new LayerNorm(8, { device });
    this.#factor = device.tensor([3], [1]);
  }
  forward(x: Tensor): Tensor {
    return this.enabled ? mul(this.norm.forward(x), this.#factor) : this.norm.forward(x);
  }
}

/**
 * Training steps, run eagerly or captured and replayed. Their numbers are equal if programs are dropped when they have
 * to be.
 */
class Steps {
  readonly model: GPT;
  readonly switched: Switched;
  readonly captured: Captured<Tensor>;
  optimizer: AdamW;
  captures = 0;
  readonly #ids: Tensor;

  constructor(readonly device: Device, readonly replays: boolean) {
    this.model = new GPT(CONFIG, { device });
    (this.model.transformer as { ln_f: Module }).ln_f = this.switched = new Switched(device);
    this.optimizer = this.model.configureOptimizers(RATES);
    this.captured = new Captured(this.model);
    this.#ids = device.tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 4], { dtype: "i32" });
  }
  #body(): Tensor {
    using scope = this.device.scope();
    const { loss } = this.model.forward(this.#ids, this.#ids);
    loss.backward();
    return scope.keep(loss);
  }
  /** Runs a step. @returns the loss, and every gradient by name; then the gradients are set to zero */
  async step(): Promise<Record<string, number[]>> {
    const { model, captured, optimizer } = this, { program } = this.replays ? captured : {};
    let loss: Tensor;
    if (program) {
      if (model.training) model.noise.begin();
      program.replay();
      loss = program.result;
    } else if (this.replays) {
      loss = captured.capture(this.device, () => this.#body());
      this.captures++;
    } else loss = this.#body();
    const result: Record<string, number[]> = { loss: [...await loss.data()] };
    for (const [name, { grad }] of model.namedParameters()) result[name] = grad ? [...await grad.data()] : [];
    optimizer.zeroGrad();
    return result;
  }
}

const CHANGES: Record<string, (steps: Steps) => void> = {
  "freeze": ({ model }) => void model.transformer.h[0].freeze(),
  "unfreeze": ({ model }) => void model.transformer.wpe.unfreeze(),
  "eval": ({ model }) => void model.eval(),
  "train of a part": ({ model }) => void model.transformer.h[1].eval(),
  "cropBlockSize": (steps) => {
    steps.model.cropBlockSize(4);
    steps.optimizer = steps.model.configureOptimizers(RATES);
  },
  "an optimizer, which moves the weights": (steps) => {
    const { device, model } = steps;
    steps.optimizer = model.configureOptimizers(RATES);
    device.fill(model.lm_head.weight.storage, (values) => new RandomGenerator(5).normal(values, 0, 0.1));
  },
  "a replaced layer": (steps) => {
    steps.model.transformer.h[0].attn.c_attn = new Linear(8, 24, {
      device: steps.device,
      generator: new RandomGenerator(7),
    });
    steps.model.changed();
    steps.optimizer = steps.model.configureOptimizers(RATES);
  },
  "a flag in a field": ({ switched }) => {
    switched.enabled = false;
    switched.changed();
  },
};

for (const [name, change] of Object.entries(CHANGES)) {
  Deno.test(`captured: ${name} drops the program, and later steps give the same numbers as eager ones`, async () => {
    const device = await createDevice("cpu", { threads: 1 });
    const eager = new Steps(device, false), captured = new Steps(device, true);
    for (const { model } of [eager, captured]) model.transformer.wpe.freeze();
    for (let i = 0; i < 2; i++) assertEquals(await captured.step(), await eager.step());
    assertEquals(captured.captures, 1);
    for (const steps of [eager, captured]) change(steps);
    for (let i = 0; i < 2; i++) assertEquals(await captured.step(), await eager.step(), `step ${i} after the change`);
    assertEquals(captured.captures, 2);
    device.close();
  });
}

Deno.test("captured: changes that are undone, and changes of other models, do not drop the program", async () => {
  const device = await createDevice("cpu", { threads: 1 });
  const steps = new Steps(device, true), { model, captured } = steps, other = new GPT(CONFIG, { device });
  await steps.step();
  const { program } = captured;
  const same: (() => void)[] = [
    () => void model.eval().train(),
    () => void model.transformer.h[0].freeze().unfreeze(),
    () => model.changed(),
    () => void other.eval(),
    () => other.cropBlockSize(4),
  ];
  for (const body of same) {
    body();
    assert(captured.program === program, `${body}`);
  }
  for await (const _ of generate(model, [1, 2], { maxNewTokens: 12 }));
  assert(captured.program === program, "generation");
  model.eval();
  assertEquals(captured.program, undefined);
  device.close();
});

Deno.test("captured: dropping a program frees its memory", async () => {
  const device = await createDevice("cpu", { threads: 1 }), steps = new Steps(device, true);
  const tensors: number[] = [], bytes: number[] = [];
  for (let i = 0; i < 4; i++) {
    await steps.step();
    tensors.push(device.memory().tensors);
    bytes.push(device.memory().reserved);
    steps.model[i % 2 === 1 ? "train" : "eval"]();
  }
  assertEquals(steps.captures, 4);
  assertEquals(new Set(tensors.slice(1)).size, 1, `${tensors}`);
  assertEquals(new Set(bytes.slice(1)).size, 1, `${bytes}`);
  device.close();
});

Deno.test("captured: if an optimizer moves the weights during generation, the following tokens use the new weights", async () => {
  const device = await createDevice("cpu", { threads: 1 }), model = new GPT(CONFIG, { device });
  const prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]; // longer than the block size: each token takes a pass over the whole window
  const greedy = (prompt: number[], maxNewTokens: number) => generate(model, prompt, { maxNewTokens, temperature: 0 });
  const untouched = await Array.fromAsync(greedy(prompt, 6)), taken: number[] = [];
  for await (const id of generate(model, prompt, { maxNewTokens: 6, topP: 0.5, temperature: 0 })) {
    taken.push(id);
    if (taken.length !== 3) continue;
    model.configureOptimizers(RATES);
    const generator = new RandomGenerator(14);
    for (const weight of model.parameters()) {
      device.fill(weight.storage, (values) => generator.normal(values, 0, 0.5));
    }
  }
  const expected = await Array.fromAsync(greedy([...prompt, ...taken.slice(0, 3)], 3));
  assertEquals(taken.slice(3), expected);
  assertNotEquals(expected, untouched.slice(3));
  device.close();
});
