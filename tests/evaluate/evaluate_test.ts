/**
 * Perplexity, `evaluateText` and features (hidden states): errors, signals, gradients, and several windows at once.
 * tests/golden compares the numbers with transformers.
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { ConfigError, DataError, ShapeError } from "../../src/errors.ts";
import { evaluateText, perplexity } from "../../src/evaluate/perplexity.ts";
import { features } from "../../src/evaluate/features.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";

const V = 11, BLOCK = 8;

async function withModel(body: (model: GPT) => Promise<void>): Promise<void> {
  const device = await createDevice("reference");
  const config = { vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0.5 };
  const model = new GPT(config, { device, seed: 1 }), generator = new RandomGenerator(2);
  for (const weight of model.parameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.5);
    device.write(weight.storage, values);
  }
  const { tensors } = device.memory();
  try {
    await body(model);
    for (const parameter of model.parameters()) {
      parameter.grad?.dispose();
      parameter.grad = undefined;
    }
    assertEquals(device.memory().tensors, tensors);
  } finally {
    device.close();
  }
}

const ids = (length: number) => Array.from({ length }, (_, i) => (i * i + 3) % V);

Deno.test("perplexity: every token is scored once, with the context of its window", () =>
  withModel(async (model) => {
    const tokens = ids(300), stride = 3;
    model.eval();
    let sum = 0; // computed step by step: token t is new in the first window that contains it
    for (let t = 1; t < tokens.length; t++) {
      const window = Math.max(0, Math.ceil((t - BLOCK + 1) / stride)), seen = tokens.slice(window * stride, t);
      const x = model.device.tensor(seen, [1, seen.length], { dtype: "i32" }), { logits } = model.forward(x);
      const row = [...await logits.data()];
      sum += Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0)) - row[tokens[t]];
      for (const tensor of [x, logits]) tensor.dispose();
    }
    model.train(); // the evaluation must switch dropout off
    const result = await perplexity(model, tokens, { stride });
    assertEquals(result.tokens, 299);
    assertAlmostEquals(result.loss, sum / 299, 1e-12);
    assertAlmostEquals(result.perplexity, Math.exp(sum / 299), 1e-11);
    assertEquals(model.training, true);
  }));

Deno.test("perplexity: with a stride of 1 all tokens count, and not only the tokens of the first window", () =>
  withModel(async (model) => {
    const result = await perplexity(model, ids(60), { stride: 1 });
    const first = await perplexity(model, ids(60).slice(0, BLOCK), { stride: 1 });
    assertEquals([result.tokens, first.tokens], [59, BLOCK - 1]);
    assertEquals(result.perplexity, Math.exp(result.loss));
    assertAlmostEquals(result.transformersPerplexity, first.perplexity, 1e-12); // the result of transformers' loop
    assert(Math.abs(result.perplexity - first.perplexity) > 0.1);
  }));

Deno.test("evaluateText: bits per byte do not depend on the tokenizer", () =>
  withModel(async (model) => {
    const tokenizer = new CharacterTokenizer([..."abcdefghiä😀"]), text = "abä😀cdä".repeat(9), options = { tokenizer };
    const result = await evaluateText(model, text, options);
    assertEquals([result.bytes, result.tokens], [9 * 12, 9 * 7 - 1]);
    assertAlmostEquals(result.bitsPerByte, result.loss / Math.LN2 * 7 / 12, 1e-12);
    await assertRejects(
      () => evaluateText(model, "abz", options),
      DataError,
      'Not in the vocabulary of 11 characters: "z"',
    );
    await assertRejects(() => evaluateText(model, "", options), DataError, "0 tokens are too few");
  }));

Deno.test("perplexity: invalid arguments are refused, and a signal stops the evaluation", () =>
  withModel(async (model) => {
    for (
      const [tokens, options, message] of [
        [ids(9), { maxLength: 9 }, "maxLength is 9; expected a whole number from 2 to the block size of 8"],
        [ids(9), { maxLength: 1 }, "maxLength is 1"],
        [ids(9), { maxLength: NaN }, "maxLength is NaN"],
        [ids(9), { stride: 0 }, "stride is 0; expected a whole number from 1 to maxLength, which is 8"],
        [ids(9), { maxLength: 4, stride: 5 }, "stride is 5"],
        [ids(9), { stride: 1.5 }, "stride is 1.5"],
      ] as const
    ) {
      await assertRejects(() => perplexity(model, tokens, options), ConfigError, message);
    }
    for (
      const [tokens, message] of [
        [[], "0 tokens are too few"],
        [[1], "1 tokens are too few"],
        [[1, V], "token 1 is 11, and the model's vocabulary ends at 10"],
        [[1, -1], "token 1 is -1"],
        [[1, 0.5], "token 1 is 0.5"],
      ] as const
    ) {
      await assertRejects(() => perplexity(model, tokens), DataError, message);
    }
    const controller = new AbortController();
    const onProgress = () => controller.abort(new DataError("enough"));
    const { signal } = controller;
    await assertRejects(() => perplexity(model, ids(5000), { signal, onProgress }), DataError, "enough");
  }));

Deno.test("features: the loss of labels and its gradients equal the results with targets that the caller shifts", () =>
  withModel(async (model) => {
    const { device } = model,
      tokens = ids(14),
      tensor = (values: number[], T: number) => device.tensor(values, [2, T], { dtype: "i32" });
    const gradients = async () => {
      const all: number[] = [];
      for (const parameter of model.parameters()) {
        all.push(...await parameter.grad!.data());
        parameter.grad!.dispose();
        parameter.grad = undefined;
      }
      return all;
    };
    const x = tensor(tokens, 7), labels = tensor(tokens.map((id, i) => i % 5 === 2 ? -100 : id), 7);
    model.train(); // dropout with the same masks: the number of the pass determines them
    const { loss, lastHiddenState, logits, attentions } = features(model, x, { labels, outputAttentions: true });
    assertEquals([model.training, lastHiddenState.shape, logits!.shape], [true, [2, 7, 8], [2, 7, V]]);
    loss.backward();
    const given = await gradients(), value = await loss.item();
    const shifted = tokens.map((_, i) => i % 7 === 6 ? -1 : (i + 1) % 5 === 2 ? -1 : tokens[i + 1]),
      y = tensor(shifted, 7);
    model.noise.passes--;
    const own = model.forward(x, y);
    own.loss.backward();
    assertAlmostEquals(value, await own.loss.item(), 1e-12);
    (await gradients()).forEach((expected, i) => assertAlmostEquals(given[i], expected, 1e-12));
    for (const one of [...attentions!, x, labels, y, loss, lastHiddenState, logits!, own.loss, own.logits]) {
      one.dispose();
    }
  }));

Deno.test("features: tensors of wrong shapes are refused", () =>
  withModel((model) => {
    const tensor = (...shape: number[]) => {
      const length = shape.reduce((a, b) => a * b);
      return model.device.tensor(ids(length), shape, { dtype: "i32" });
    };
    using _ = model.device.scope();
    assertThrows(() => features(model, tensor(1, 9)), ShapeError, "9 tokens do not fit into the block size of 8");
    assertThrows(() => features(model, tensor(3)), ShapeError, "tokens are [3], expected [B, T]");
    const labels = tensor(1, 4);
    assertThrows(() => features(model, tensor(1, 3), { labels }), ShapeError, "labels are [1,4], expected [1,3]");
    assertThrows(() => features(model, tensor(1, 1), { labels: tensor(1, 1) }), ShapeError, "two tokens or more");
    return Promise.resolve();
  }));
