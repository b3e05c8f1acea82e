/** Modules: which tensors are parameters, which are trained, the mode of modules, and their memory. */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import type { Device, Launch } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { ConfigError, DeviceError, ShapeError } from "../../src/errors.ts";
import { perplexity } from "../../src/evaluate/perplexity.ts";
import { generate } from "../../src/generate/generate.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { KeyValueCache } from "../../src/nn/cache.ts";
import { Dropout, DropoutNoise, Embedding, evaluating, LayerNorm, Linear, Module } from "../../src/nn/mod.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { Trainer } from "../../src/train/trainer.ts";

const CONFIG = { blockSize: 8, vocabSize: 11, nLayer: 3, nHead: 2, nEmbd: 8 };
const names = (module: Module, trainable = false) => [...module.namedParameters({ trainable })].map(([name]) => name);
const device = await createDevice("reference");

Deno.test("module: public fields with tensors of floats are parameters, trained or not", () => {
  class Layer extends Module {
    readonly weight = device.tensor([1, 2], [2]);
    readonly ids = device.tensor([1], [1], { dtype: "i32" });
    readonly rounded = device.tensor([1, 2, 3, 4], [2, 2], { dtype: "bf16" });
    readonly #buffer = device.tensor([0], [1]);
    buffer = () => this.#buffer;
  }
  const layer = new Layer();
  assertEquals(names(layer), ["weight", "rounded"]);
  assertEquals(names(layer, true), []);
  layer.weight.requiresGrad = true;
  assertEquals(names(layer, true), ["weight"]);
  assertThrows(() => layer.unfreeze(), ConfigError, "unfreeze: rounded is stored in bf16, which cannot be trained");
  assertThrows(() => layer.rounded.requiresGrad = true, TypeError, "bf16 can have no gradient");
});

Deno.test("freeze: frozen parameters stay in names, counts and dispose", () => {
  const { tensors, bytes } = device.memory();
  const model = new GPT(CONFIG, { device }), all = names(model), count = model.numParameters();
  assertEquals(model.numParameters({ nonEmbedding: false }), count + 8 * 8);
  model.transformer.h[0].attn.c_attn.freeze();
  assertEquals(names(model), all);
  assertEquals(names(model, true), all.filter((name) => !name.startsWith("transformer.h.0.attn.c_attn")));
  assertEquals(model.numParameters(), count);
  model.freeze();
  assertEquals(names(model, true), []);
  const options = { weightDecay: 0, learningRate: 1, betas: [0.9, 0.99] } as const;
  assertThrows(() => model.configureOptimizers(options), ConfigError, "configureOptimizers: no parameter is trainable");
  model.transformer.ln_f.unfreeze();
  const optimizer = model.configureOptimizers(options);
  assertEquals([...optimizer.namedState()].length, 4);
  optimizer.dispose();
  model.dispose();
  assertEquals({ ...device.memory(), reserved: 0 }, { tensors, bytes, reserved: 0 });
});

/** Counts launches by kernel, and can refuse all allocations after the first `room`. */
class Watched extends ReferenceDevice {
  counts = new Map<string, number>();
  room = Infinity;
  override run(launch: Launch): void {
    this.counts.set(launch.kernel.name, (this.counts.get(launch.kernel.name) ?? 0) + 1);
    super.run(launch);
  }
  override allocate(...args: Parameters<Device["allocate"]>) {
    if (this.room-- <= 0) throw new DeviceError("no room");
    return super.allocate(...args);
  }
}

Deno.test("freeze: backward computes no frozen gradients, and nothing below the lowest layer that is trained", () => {
  const device = new Watched(), model = new GPT(CONFIG, { device }).freeze();
  const last = model.transformer.h[2].unfreeze(), ids = device.tensor([1, 2, 3], [1, 3], { dtype: "i32" });
  const { loss } = model.forward(ids, ids);
  device.counts.clear();
  loss.backward();
  const counts = Object.fromEntries([...device.counts].filter(([name]) => /backward|matmul/.test(name)).toSorted());
  assertEquals(counts, {
    attention_backward: 1,
    cross_entropy_backward: 1,
    gelu_erf_backward: 1,
    layer_norm_backward_input: 2, // of ln_f and ln_2: the block's input needs no gradient
    layer_norm_backward_params: 2, // of ln_1 and ln_2
    matmul_nn: 5, // of the head and of the block's four linear layers
    matmul_tn: 4,
  });
  const given = [...model.namedParameters()].filter(([, { grad }]) => grad).map(([, parameter]) => parameter);
  assertEquals(given, [...last.parameters()]);
});

Deno.test("freeze: an existing gradient does not change, and a frozen weight with a trained bias gets none", async () => {
  const norm = new LayerNorm(3, { device }), layer = new Linear(3, 2, { device });
  const pass = () =>
    layer.forward(norm.forward(device.tensor([1, 2, 4], [1, 3]))).backward(device.tensor([1, 1], [1, 2]));
  pass();
  const parameters = [norm.weight, norm.bias!, layer.weight, layer.bias!];
  const before = await Promise.all(parameters.map((one) => one.grad!.data()));
  for (const one of [norm.weight, layer.weight]) one.requiresGrad = false;
  pass();
  const after = await Promise.all(parameters.map((one) => one.grad!.data()));
  assertEquals(after, before.map((values, i) => i % 2 === 0 ? values : values.map((value) => 2 * value)));
  assertThrows(
    () => layer.forward(device.tensor([1, 2, 4], [3])).requiresGrad = false,
    TypeError,
    "the result of linear",
  );
});

Deno.test("layers without a generator differ from each other", async () => {
  const values = async ({ weight }: { weight: Tensor }) => [...await weight.data()];
  assertNotEquals(await values(new Linear(4, 4, { device })), await values(new Linear(4, 4, { device })));
  assertNotEquals(await values(new Embedding(4, 4, { device })), await values(new Embedding(4, 4, { device })));
});

Deno.test("evaluating: the mode of every module is restored, even if the body throws", () => {
  const model = new GPT({ ...CONFIG, dropout: 0.5 }, { device }), { h, drop } = model.transformer;
  h[1].eval();
  const modes = () => [...model.modules()].map(({ training }) => training), before = modes();
  assertEquals(evaluating(model, () => [...modes(), drop.active]), [...before.map(() => false), false]);
  assertEquals(modes(), before);
  assertThrows(() =>
    evaluating(model, () => {
      throw new RangeError("body");
    }), RangeError);
  assertEquals(modes(), before);
  assertThrows(() => evaluating(model, () => Promise.resolve()), TypeError, "must not be asynchronous");
  assertEquals(modes(), before);
});

Deno.test("an error in a forward pass does not change the model's mode: perplexity, training, generation", async () => {
  const model = new GPT({ ...CONFIG, dropout: 0.5 }, { device }),
    tokens = Int32Array.from({ length: 20 }, (_, i) => i % 11);
  model.transformer.h[2].forward = () => {
    throw new DeviceError("lost");
  };
  const trainer = new Trainer(model, { train: tokens, val: tokens }, { batchSize: 1, evalIters: 1 });
  for (
    const body of [
      () => perplexity(model, tokens),
      () => Array.fromAsync(trainer.run()),
      () => Array.fromAsync(generate(model, [1], { maxNewTokens: 2 })),
    ]
  ) {
    await assertRejects(async () => void await body(), DeviceError, "lost");
    assertEquals(new Set([...model.modules()].map(({ training }) => training)), new Set([true]), `${body}`);
  }
});

const CONSTRUCTORS: Record<string, (device: Device) => Disposable> = {
  Linear: (device) => new Linear(3, 4, { device }),
  Embedding: (device) => new Embedding(3, 4, { device }),
  LayerNorm: (device) => new LayerNorm(3, { device }),
  KeyValueCache: (device) => new KeyValueCache(device, { slots: 1, layers: 2, length: 3, heads: 1, width: 2 }),
  "KeyValueCache in bf16": (device) =>
    new KeyValueCache(device, { slots: 2, layers: 2, length: 3, heads: 1, width: 2, dtype: "bf16" }),
  GPT: (device) => new GPT(CONFIG, { device }),
  "GPT in bf16": (device) => new GPT({ ...CONFIG, tieWordEmbeddings: false }, { device, weights: "bf16" }),
};
for (const [name, make] of Object.entries(CONSTRUCTORS)) {
  Deno.test(`${name}: if it does not fit, nothing stays allocated; if it does, \`using\` frees it`, () => {
    const device = new Watched();
    for (let room = 0;; room++) {
      const { tensors, bytes } = device.memory();
      let made = false;
      try {
        device.room = room;
        using _ = make(device);
        made = true;
        assert(device.memory().tensors > tensors);
      } catch (error) {
        assert(error instanceof DeviceError, `${error}`);
      }
      assertEquals({ ...device.memory(), reserved: 0 }, { tensors, bytes, reserved: 0 }, `room for ${room}`);
      if (made) return assert(room > 0);
    }
  });
}

Deno.test("AdamW: if it does not fit, parameters and gradients do not move", async () => {
  const device = new Watched(), made = () => device.tensor([1, 2, 3], [3], { requiresGrad: true });
  for (let room = 0;; room++) {
    device.room = Infinity;
    const x = made(),
      y = made(),
      gradient = made(),
      places = [x.storage, y.storage],
      { tensors, bytes } = device.memory();
    x.grad = gradient;
    try {
      device.room = room;
      new AdamW([["x", x], ["y", y]]);
      return assert(room > 4);
    } catch (error) {
      assert(error instanceof DeviceError, `${error}`);
    }
    assertEquals({ ...device.memory(), reserved: 0 }, { tensors, bytes, reserved: 0 }, `room for ${room}`);
    assert(x.storage === places[0] && y.storage === places[1] && x.grad === gradient && !y.grad);
    assertEquals([...await x.data(), ...await gradient.data()], [1, 2, 3, 1, 2, 3]);
  }
});

Deno.test("the scope that a model was made in frees it", () => {
  const { tensors } = device.memory();
  {
    using _ = device.scope();
    new GPT(CONFIG, { device });
  }
  assertEquals(device.memory().tensors, tensors);
  const noise = new DropoutNoise(device, 1), dropout = new Dropout(0.5, noise);
  assertEquals(names(dropout), []);
  noise.offset.dispose();
});

Deno.test("GPT: unknown fields of a config are refused, and the most similar field is named", () => {
  const refused = (config: Record<string, unknown>, message: string) =>
    assertThrows(() => new GPT(config as Partial<GPTConfig>, { device }), ConfigError, message);
  refused({ vocab_size: 65 }, "vocab_size is not a field of GPTConfig; did you mean vocabSize?");
  refused({ ...CONFIG, blocksize: 8 }, "blocksize is not a field of GPTConfig; did you mean blockSize?");
  refused({ ...CONFIG, n_layer: 1 }, "did you mean nLayer?");
  refused({ ...CONFIG, nInner: 8, colour: "red" }, "colour is not a field of GPTConfig: blockSize, vocabSize, nLayer");
});

Deno.test("estimateMfu counts operations as PaLM's authors do", () => {
  const model = new GPT(CONFIG, { device }), perToken = 6 * model.numParameters() + 12 * 3 * 8 * 8;
  assertEquals(model.estimateMfu({ sequences: 4, seconds: 2, peakFlops: 1e6 }), perToken * 8 * 4 / 2 / 1e6);
});

Deno.test("hidden: forward applies the head to it, and `each` sees every block's input and the final output", async () => {
  const model = new GPT({ ...CONFIG, dropout: 0.5 }, { device, seed: 3 });
  const ids = device.tensor([1, 2, 3, 4, 5, 6], [2, 3], { dtype: "i32" }), seen: Tensor[] = [];
  const { tensors } = device.memory();
  const made: Tensor[] = [];
  const x = model.hidden(ids, {
    each: (x, layer) => {
      assertEquals(layer, seen.length);
      seen.push(x);
      if (layer === 3) made.push(model.lm_head.forward(x)); // tensors made here belong to the caller, too
    },
  });
  assert(seen.length === 4 && x === seen[3]);
  const input = seen[1], output = model.eval().transformer.h[1].forward(input);
  assertEquals(output.shape, [2, 3, 8]);
  model.train().noise.passes--;
  const { logits } = model.forward(ids, ids);
  assertEquals([...await made[0].data()], [...await logits.data()]);
  for (const one of [output, logits, ...seen, ...made]) one.dispose();
  model.noise.passes--;
  const plain = model.hidden(ids);
  plain.dispose();
  assertEquals(device.memory().tensors, tensors + 1); // the loss
  assertThrows(() => model.hidden(device.tensor([1], [1], { dtype: "i32" })), Error, "expected [B, T]");
});

Deno.test("hidden: starts and positions are refused if their shape is wrong, they are outside the row, or there is a cache", () => {
  const model = new GPT(CONFIG, { device }), i32 = { dtype: "i32" } as const, cache = model.createCache();
  const tokens = device.tensor([1, 2, 3], [1, 3], i32),
    three = (...numbers: number[]) => device.tensor(numbers, [1, 3], i32);
  const flat = device.tensor([0, 0, 0], [3], i32), before = device.memory().tensors;
  for (
    const [options, message] of [
      [{ starts: flat }, "starts are [3], tokens [1,3]"],
      [{ positions: flat }, "positions are [3], tokens [1,3]"],
      [{ starts: three(0, 0, 3) }, "a token's document starts at 3, expected 0 to 2"],
      [{ positions: three(0, 1, 8) }, "id 8 is not one of its 8 rows"],
      [{ starts: three(0, 0, 2), cache }, "starts cannot be combined with a cache"],
      [{ positions: three(0, 1, 0), cache }, "positions cannot be combined with a cache"],
    ] as const
  ) {
    assertThrows(() => model.hidden(tokens, options), ShapeError, message);
    assertThrows(() => model.forward(tokens, tokens, options), ShapeError, message);
  }
  assertEquals(device.memory().tensors, before + 4, "a refusal did not free its tensors"); // the four of three()
});

Deno.test("forward: `of` chooses the tokens to compute logits for, and is refused with targets", async () => {
  const model = new GPT(CONFIG, { device }).eval(), i32 = { dtype: "i32" } as const;
  const tokens = device.tensor([1, 2, 3, 4], [2, 2], i32), of = device.tensor([2, 0, 2], [3], i32);
  const before = device.memory().tensors,
    all = model.forward(tokens, tokens),
    chosen = model.forward(tokens, undefined, { of });
  const [rows, picked] = [await all.logits.data(), await chosen.logits.data()], V = CONFIG.vocabSize;
  assertEquals(chosen.logits.shape, [3, 1, V]);
  assertEquals([...picked], [2, 0, 2].flatMap((row) => [...rows.subarray(row * V, (row + 1) * V)]));
  for (const one of [all.logits, all.loss, chosen.logits]) one.dispose();
  assertThrows(
    () => model.forward(tokens, tokens, { of }),
    ConfigError,
    "GPT: of cannot be combined with targets, because the loss needs the logits of all tokens; leave out of, or call",
  );
  assertEquals(device.memory().tensors, before);
});
