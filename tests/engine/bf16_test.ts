/**
 * Weights stored in bf16 give the same bits, in results and in gradients of inputs, as the same numbers in f32. They
 * cannot be trained.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { matmulBias, matmulNN, matmulNT } from "../../kernels/matmul/kernel.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { type Device, Storage } from "../../src/engine/device.ts";
import { ConfigError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { launch } from "../../src/engine/launch.ts";
import { embedding } from "../../src/ops/embedding.ts";
import { linear } from "../../src/ops/linear.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { generate } from "../../src/generate/generate.ts";
import { sizeOf, type Tensor } from "../../src/engine/tensor.ts";
import { devices } from "../testing.ts";
import { assertAgrees, normal } from "./agree.ts";

/**
 * [batch, M, K, N]. For the CPU: few rows of a, with few or many columns of b; sizes around the tile's and around 384,
 * a block of K; a common operand that is too large for a copy in each thread's scratch memory. For the GPU: few rows;
 * tiles of 64 and of 128; single elements and groups of four; rows of b that begin in the middle of a word.
 */
const SIZES = [
  [1, 1, 1, 1],
  [1, 1, 4, 1],
  [1, 2, 33, 70],
  [2, 3, 385, 129],
  [1, 4, 1600, 65],
  [3, 5, 132, 9],
  [1, 7, 5, 9],
  [1, 33, 384, 17],
  [2, 40, 769, 24],
  [1, 301, 400, 290],
  [96, 6, 385, 33],
  [36, 20, 385, 13],
  [64, 136, 20, 132],
];
const ROWS = [[1, 1], [3, 7], [9, 8], [65, 128], [7, 33]];

/** A weight in bf16, and the same numbers in f32. */
async function twins(device: Device, shape: number[]): Promise<[kept: Tensor, wide: Tensor]> {
  const kept = device.tensor(normal(sizeOf(shape), 2), shape, { dtype: "bf16" });
  return [kept, device.tensor(await kept.data(), shape)];
}
const bits = async (tensor: Tensor) => new Int32Array((await tensor.data()).buffer);

for (const { name, device } of await devices()) {
  const test = (what: string, body: () => void | Promise<void>) => Deno.test(`${what} (${name})`, body);

  for (const [batch, M, K, N] of SIZES) {
    test(`a product with [${batch},${N},${K}] in bf16 has the bits of the product in f32, from ${M} rows`, async () => {
      const [kept, wide] = await twins(device, [batch, N, K]);
      const a = device.tensor(normal(batch * M * K, 1), [batch, M, K]), bias = device.tensor(normal(N, 3), [N]);
      for (
        const product of [(b: Tensor) => launch(matmulNT, { a, b }), (b: Tensor) => launch(matmulBias, { a, b, bias })]
      ) {
        assertEquals(await bits(product(kept).c), await bits(product(wide).c));
      }
      const [keptNN, wideNN] = await twins(device, [batch, K, N]); // b is not transposed, as in gradients
      assertEquals(await bits(launch(matmulNN, { a, b: keptNN }).c), await bits(launch(matmulNN, { a, b: wideNN }).c));
    });
  }

  test("embedding reads the same rows from a table in bf16 as from that table in f32", async () => {
    for (const [V, C] of ROWS) {
      const [kept, wide] = await twins(device, [V, C]), ids = device.tensor([V - 1, 0, V >> 1], [3], { dtype: "i32" });
      assertEquals(await bits(embedding(ids, kept)), await bits(embedding(ids, wide)), `[${V},${C}]`);
    }
  });

  test("floats are rounded to nearest, ties to even, when written; bits are written unchanged", async () => {
    // Next to 1 the distance between two bf16 is 2⁻⁷, so 2⁻⁸ is a tie.
    const values = [1, 1 + 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 1 + 3 * 2 ** -8, -1 - 2 ** -8, 1e-45, -0, Infinity, 3.4e38];
    const rounded = [1, 1, 1 + 2 ** -7, 1 + 2 ** -6, -1, 0, -0, Infinity, Infinity]; // the largest is 3.3895e38
    const tensor = device.tensor(values, [9], { dtype: "bf16" });
    assertEquals([...await tensor.data()], rounded);
    assertEquals(tensor.dtype, "bf16");
    assert(Number.isNaN((await device.tensor([NaN], [1], { dtype: "bf16" }).data())[0]));
    device.write(
      tensor.storage,
      Uint16Array.of(0x3f80, 0xbf80, 0x4000, 0x0001, 0x8000, 0x7f80, 0xff80, 0x4049, 0x3f81),
    );
    assertEquals(
      [...await tensor.data()],
      [1, -1, 2, 2 ** -133, -0, Infinity, -Infinity, 3.140625, 1 + 2 ** -7],
    );
    device.write(new Storage(tensor.storage.block, 4, 2), [5, 6, 7, 8]);
    assertEquals([...await tensor.data()].slice(0, 7), [1, -1, 5, 6, 7, 8, -Infinity]);
  });

  test("a model in bf16 has the same logits as an f32 model with the same numbers, and generates the same text", async () => {
    const config = { vocabSize: 67, blockSize: 12, nLayer: 2, nHead: 3, nEmbd: 36, bias: true };
    const kept = new GPT(config, { device, seed: 5, weights: "bf16" }).eval(),
      wide = new GPT(config, { device }).eval();
    const [names, others] = [kept, wide].map((model) => new Map(model.namedParameters()));
    assertEquals([...names.keys()], [...others.keys()]);
    assertEquals(kept.numParameters(), wide.numParameters());
    for (const [name, weight] of names) device.write(others.get(name)!.storage, await weight.data());
    const tokens = device.tensor([3, 1, 4, 1, 5, 9, 2, 6], [1, 8], { dtype: "i32" });
    const logits = (model: GPT) => bits(noGrad(() => model.forward(tokens)).logits);
    assertEquals(await logits(kept), await logits(wide));
    const text = (model: GPT) => Array.fromAsync(generate(model, [1, 2, 3], { maxNewTokens: 15, seed: 3 }));
    assertEquals(await text(kept), await text(wide)); // the prompt, single tokens, then the sliding window
    kept.cropBlockSize(5);
    assertEquals(kept.transformer.wpe.weight.shape, [5, 36]);
  });

  test("weights in bf16 take half the memory, and dispose frees them", () => {
    const before = device.memory(), each = device.bytesOf("bf16");
    const model = new GPT({ vocabSize: 64, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 32 }, {
      device,
      weights: "bf16",
    });
    const wte = model.transformer.wte.weight.storage.block;
    assertEquals([wte.dtype, wte.capacity, each], ["bf16", 64 * 32, device.name === "reference" ? 8 : 2]);
    model.dispose();
    assertEquals({ ...device.memory(), reserved: 0 }, { ...before, reserved: 0 });
  });

  test("gradients flow through bf16 weights to the input, and to the bias", async () => {
    for (const [rows, inner, out] of [[1, 3, 5], [2, 66, 9], [7, 33, 130], [65, 128, 64]]) {
      const [kept, wide] = await twins(device, [out, inner]), seed = device.tensor(normal(rows * out, 4), [rows, out]);
      const gradients = async (weight: Tensor) => {
        const x = device.tensor(normal(rows * inner, 1), [rows, inner], { requiresGrad: true });
        const bias = device.tensor(normal(out, 3), [out], { requiresGrad: true });
        linear(x, weight, bias).backward(seed);
        assertEquals(weight.grad, undefined);
        return [await bits(x.grad!), await bits(bias.grad!)];
      };
      assertEquals(await gradients(kept), await gradients(wide));
    }
  });

  test("a model in bf16 passes its loss's gradient to tensors that are trained with it", async () => {
    const config = { vocabSize: 67, blockSize: 12, nLayer: 2, nHead: 3, nEmbd: 36 };
    const kept = new GPT(config, { device, seed: 5, weights: "bf16" }), wide = new GPT(config, { device });
    const others = new Map(wide.namedParameters());
    for (const [name, weight] of kept.namedParameters()) device.write(others.get(name)!.storage, await weight.data());
    wide.freeze();
    assertEquals([...kept.namedParameters({ trainable: true })], []);
    const tokens = device.tensor([3, 1, 4, 1, 5, 9, 2, 6], [1, 8], { dtype: "i32" });
    const gradients = async (model: GPT) => {
      const ln_1 = model.transformer.h[1].ln_1.unfreeze();
      model.forward(tokens, tokens).loss.backward();
      return [await bits(ln_1.weight.grad!), await bits(ln_1.bias!.grad!)];
    };
    assertEquals(await gradients(kept), await gradients(wide));
  });

  test("an optimizer rejects bf16 parameters, and unfreeze names them", () => {
    const model = new GPT({ vocabSize: 5, blockSize: 4, nLayer: 1, nHead: 1, nEmbd: 4 }, { device, weights: "bf16" });
    const refusal = "lm_head.weight is stored in bf16, which cannot be trained; make the model with f32 weights";
    assertThrows(() => new AdamW([["lm_head.weight", model.lm_head.weight]]), ConfigError, refusal);
    const options = { weightDecay: 0, learningRate: 1, betas: [0.9, 0.99] } as const;
    assertThrows(
      () => model.configureOptimizers(options),
      ConfigError,
      "configureOptimizers: no parameter is trainable",
    );
    assertThrows(() => model.unfreeze(), ConfigError, "unfreeze: transformer.wte.weight is stored in bf16");
  });
}

Deno.test("products with bf16 have the same bits on any number of threads, and write only to their result", async () => {
  for (const [batch, M, K, N] of SIZES) {
    await assertAgrees(`[${batch},${M},${K},${N}]`, { atol: 1e-7 * K, rtol: 1e-6 }, (device) => {
      const a = device.tensor(normal(batch * M * K, 1), [batch, M, K]);
      const b = device.tensor(normal(batch * N * K, 2), [batch, N, K], { dtype: "bf16" });
      return [launch(matmulNT, { a, b }).c];
    });
  }
});
