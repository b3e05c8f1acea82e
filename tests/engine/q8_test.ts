/**
 * Tests weights that are stored in q8_0. Their blocks have GGUF's layout. Results, and gradients of inputs, have the
 * same bits as if the numbers of the blocks were stored in f32.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { matmulBias, matmulNN, matmulNT } from "../../kernels/matmul/kernel.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { type Device, Storage } from "../../src/engine/device.ts";
import { launch } from "../../src/engine/launch.ts";
import { q8ToF32 } from "../../src/engine/q8_0.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { ConfigError, DeviceError } from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import { GPT } from "../../src/gpt.ts";
import { embedding } from "../../src/ops/embedding.ts";
import { linear } from "../../src/ops/linear.ts";
import { devices } from "../testing.ts";
import { normal } from "./agree.ts";

/**
 * Blocks made by PyPI's `gguf` (tests/golden/generate_gguf.py): the floats that were quantized, the bytes of the
 * blocks, and the floats that the bytes stand for.
 */
const fixture = (() => {
  const { q8_0 } = JSON.parse(Deno.readTextFileSync(new URL("../golden/gguf/expected.json", import.meta.url)));
  const [values, blocks] = [q8_0.values, q8_0.bytes].map((hex) => Uint8Array.fromHex(hex));
  return { values: new Float32Array(values.buffer), blocks, wide: q8ToF32(blocks) };
})();

/**
 * [M, K, N]. For the CPU: sizes around a panel's width and a task's number of panels. For the GPU: few rows, and tiles
 * of both sizes.
 */
const SIZES = [[1, 32, 1], [2, 64, 70], [8, 416, 33], [7, 32, 9], [40, 768, 24], [301, 416, 290], [136, 32, 132]];
const bits = async (tensor: Tensor) => new Int32Array(Float32Array.from(await tensor.data()).buffer);

async function twins(device: Device, shape: [number, number]): Promise<[stored: Tensor, wide: Tensor]> {
  const stored = device.tensor(normal(shape[0] * shape[1], 2), shape, { dtype: "q8_0" });
  return [stored, device.tensor(await stored.data(), shape)];
}

for (const { name, device } of await devices()) {
  const test = (what: string, body: () => void | Promise<void>) => Deno.test(`${what} (${name})`, body);

  test("floats are quantized when written, and blocks are read back unchanged", async () => {
    const count = fixture.values.length, tensor = device.tensor(fixture.values, [count / 32, 32], { dtype: "q8_0" });
    assertEquals(`${tensor}`, `Tensor [${count / 32}, 32] q8_0 on ${device.name}`);
    const stored = await device.readStored(tensor.storage), data = Float32Array.from(await tensor.data());
    assertEquals(data, fixture.wide);
    // The reference device stores floats instead of blocks. So it has lost the integers of a block whose scale is 0.
    if (device.name !== "reference") assertEquals(stored, fixture.blocks);
    const [part, wide] = [fixture.blocks.subarray(34, 4 * 34), fixture.wide.subarray(32, 4 * 32)];
    device.write(new Storage(tensor.storage.block, 96, count - 128), part);
    assertEquals(Float32Array.from(await tensor.data()).subarray(count - 128, count - 32), wide);
    assertThrows(
      () => device.write(new Storage(tensor.storage.block, 32, 16), new Float32Array(32)),
      DeviceError,
      "whole blocks",
    );
    assertThrows(() => device.write(tensor.storage, part), DeviceError, "write: 102 values");
    for (const value of [NaN, Infinity, -9e6]) {
      const values = new Float32Array(count).fill(value, 3, 4);
      assertThrows(() => device.write(tensor.storage, values), DeviceError, "q8_0 cannot store infinity, NaN");
    }
  });

  for (const [M, K, N] of SIZES) {
    test(`a product with [${N},${K}] in q8_0 has the bits of the product in f32, from ${M} rows`, async () => {
      const [stored, wide] = await twins(device, [N, K]), B = [1, N, K];
      const a = device.tensor(normal(M * K, 1), [1, M, K]), bias = device.tensor(normal(N, 3), [N]);
      const dy = device.tensor(normal(M * N, 4), [1, M, N]);
      for (
        const product of [
          (b: Tensor) => launch(matmulNT, { a, b }),
          (b: Tensor) => launch(matmulBias, { a, b, bias }),
          (b: Tensor) => launch(matmulNN, { a: dy, b }),
        ]
      ) assertEquals(await bits(product(stored.alias(B)).c), await bits(product(wide.alias(B)).c));
    });
  }

  test("embedding reads the same rows from a table in q8_0 as from that table in f32", async () => {
    for (const [V, C] of [[1, 32], [9, 64], [65, 128]] as [number, number][]) {
      const [stored, wide] = await twins(device, [V, C]),
        ids = device.tensor([V - 1, 0, V >> 1], [3], { dtype: "i32" });
      assertEquals(await bits(embedding(ids, stored)), await bits(embedding(ids, wide)), `[${V},${C}]`);
    }
  });

  test("a model in q8_0 has the same logits, text and gradients as an f32 model with the same numbers", async () => {
    const config = { vocabSize: 67, blockSize: 12, nLayer: 2, nHead: 2, nEmbd: 32 };
    const stored = new GPT(config, { device, seed: 5, weights: "q8_0" }).eval(),
      wide = new GPT(config, { device }).eval();
    const others = new Map(wide.namedParameters());
    for (const [name, weight] of stored.namedParameters()) {
      assertEquals([name, weight.dtype], [name, /ln_|wpe|bias/.test(name) ? "f32" : "q8_0"]);
      device.write(others.get(name)!.storage, await weight.data());
    }
    const tokens = device.tensor([3, 1, 4, 1, 5, 9, 2, 6], [1, 8], { dtype: "i32" });
    const logits = (model: GPT) => bits(noGrad(() => model.forward(tokens)).logits);
    assertEquals(await logits(stored), await logits(wide));
    const text = (model: GPT) => Array.fromAsync(generate(model, [1, 2, 3], { maxNewTokens: 15, seed: 3 }));
    assertEquals(await text(stored), await text(wide));
    wide.freeze();
    const gradient = async (model: GPT) => {
      const ln_1 = model.transformer.h[0].ln_1.unfreeze();
      model.forward(tokens, tokens).loss.backward();
      return await bits(ln_1.weight.grad!);
    };
    assertEquals(await gradient(stored), await gradient(wide));
    const x = device.tensor(normal(64, 1), [2, 32], { requiresGrad: true }), weight = stored.lm_head.weight;
    linear(x, weight).backward(device.tensor(normal(134, 2), [2, 67]));
    assertEquals([x.grad!.shape, weight.grad], [[2, 32], undefined]);
    const refusal = "weight is stored in q8_0, which cannot be trained; make the model with f32 weights";
    assertThrows(() => stored.unfreeze(), ConfigError, refusal);
  });

  test("a width that is not a multiple of 32 is rejected, with its name", () => {
    const config = { vocabSize: 5, blockSize: 4, nLayer: 1, nHead: 1, nEmbd: 36 };
    const { tensors } = device.memory();
    assertThrows(() => new GPT(config, { device, weights: "q8_0" }), ConfigError, "nEmbd is 36, not a multiple of 32");
    const inner = { ...config, nEmbd: 32, nInner: 100 };
    assertThrows(() => new GPT(inner, { device, weights: "q8_0" }), ConfigError, "nInner is 100, not a multiple of 32");
    assertEquals(device.memory().tensors, tensors);
  });
}
