/** Weights kept in bf16: what is read of them is what the same numbers in f32 give, bit for bit, and nothing is trained. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { matmulBias, matmulNT } from "../../kernels/matmul/kernel.ts";
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
 * [batch, M, K, N]: for the CPU few rows, with none, some and many of b together; tiles and beside them; blocks of K of 384 and
 * beside them; the other operand too large for a copy in each thread's scratch. For the GPU few rows, tiles of 64 and of 128,
 * by fours and one by one, and rows of b that begin in the middle of a word.
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
    });
  }

  test("rows of a table in bf16 are those of the same table in f32", async () => {
    for (const [V, C] of ROWS) {
      const [kept, wide] = await twins(device, [V, C]), ids = device.tensor([V - 1, 0, V >> 1], [3], { dtype: "i32" });
      assertEquals(await bits(embedding(ids, kept)), await bits(embedding(ids, wide)), `[${V},${C}]`);
    }
  });

  test("what is written is rounded to the nearest, to even where two are as near; bits are taken as they are", async () => {
    // Beside 1 the step is 2⁻⁷, and half of it is 2⁻⁸.
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

  test("a model in bf16 has the logits of the one in f32 with the same numbers, and writes the same text", async () => {
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
    assertEquals(await text(kept), await text(wide)); // the prompt, one token behind the cache, the window
    kept.cropBlockSize(5);
    assertEquals(kept.transformer.wpe.weight.shape, [5, 36]);
  });

  test("weights kept in bf16 take half the memory, and go when they are disposed of", () => {
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

  test("no gradient goes through bf16, and an optimizer refuses it", () => {
    const x = device.tensor([1, 2], [1, 2], { requiresGrad: true });
    const weight = device.tensor([3, 4], [1, 2], { dtype: "bf16" });
    const message = "linear's weight [1,2] is kept in bf16, for inference; f32 can be trained";
    assertThrows(() => linear(x, weight).backward(), TypeError, message);
    const model = new GPT({ vocabSize: 5, blockSize: 4, nLayer: 1, nHead: 1, nEmbd: 4 }, { device, weights: "bf16" });
    const refusal = "lm_head.weight is kept in bf16, for inference; a model is trained with f32 weights";
    assertThrows(() => new AdamW([["lm_head.weight", model.lm_head.weight]]), ConfigError, refusal);
    const options = { weightDecay: 0, learningRate: 1, betas: [0.9, 0.99] } as const;
    assertThrows(() => model.configureOptimizers(options), ConfigError, "is kept in bf16");
  });
}

Deno.test("products with bf16 have the same bits on any number of threads, and write nowhere else", async () => {
  for (const [batch, M, K, N] of SIZES) {
    await assertAgrees(`[${batch},${M},${K},${N}]`, { atol: 1e-7 * K, rtol: 1e-6 }, (device) => {
      const a = device.tensor(normal(batch * M * K, 1), [batch, M, K]);
      const b = device.tensor(normal(batch * N * K, 2), [batch, N, K], { dtype: "bf16" });
      return [launch(matmulNT, { a, b }).c];
    });
  }
});
