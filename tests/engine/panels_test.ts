/**
 * Tests matrices that are stored in panels: products with them have the same bits as products in training, and hosts
 * read and write them row by row.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { matmulBias, matmulNN, matmulNT } from "../../kernels/matmul/kernel.ts";
import { transpose } from "../../kernels/transpose/kernel.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { type Device, Storage } from "../../src/engine/device.ts";
import { launch } from "../../src/engine/launch.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { ConfigError, DeviceError, ShapeError } from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import { GPT } from "../../src/gpt.ts";
import type { StorageType } from "../../src/kernel.ts";
import { add, embedding, linear, matmul, permute, reshape } from "../../src/ops/mod.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { normal } from "./agree.ts";

const TYPES = ["f32", "bf16", "q8_0"] as const;
const bits = async (tensor: Tensor) => new Int32Array((await tensor.data()).buffer);

/** A matrix in panels, and an f32 matrix with the same numbers, stored row by row. */
async function twins(
  device: Device,
  dtype: StorageType,
  shape: [number, number],
): Promise<[laid: Tensor, plain: Tensor]> {
  const laid = device.tensor(normal(shape[0] * shape[1], 2), shape, { dtype, panels: true });
  return [laid, device.tensor(await laid.data(), shape)];
}

/**
 * [K, N]: sizes around a panel's width, a task's number of panels and 384, a block of K; and values of K that are not
 * multiples of four.
 */
const SIZES = [[1, 1], [3, 7], [4, 16], [33, 17], [64, 97], [130, 130], [383, 50], [384, 33], [385, 200], [769, 24]];
const ROWS = [...Array(14).keys(), 30, 46, 47, 48, 69].map((i) => i + 1);

for (const threads of [1, 3]) {
  for (const dtype of TYPES) {
    Deno.test(`a product with a matrix in panels has the bits of the training product: ${dtype}, threads: ${threads}`, async () => {
      const device = await CpuDevice.create({ threads, guards: true });
      for (const [k, N] of SIZES) {
        const K = dtype === "q8_0" ? Math.ceil(k / 32) * 32 : k, [laid, plain] = await twins(device, dtype, [N, K]);
        const all = device.tensor(normal(70 * K, 1), [70, K]), bias = device.tensor(normal(N, 3), [N]);
        const whole = await bits(linear(all, plain, bias)), bare = await bits(linear(all, plain));
        for (const M of ROWS) {
          const first = 70 - M, a = device.tensor((await all.data()).subarray(first * K), [1, M, K]);
          const b = laid.alias([1, N, K]), what = `[${M},${K}] by [${N},${K}]`;
          assertEquals(await bits(launch(matmulBias, { a, b, bias }).c), whole.subarray(first * N), what);
          assertEquals(await bits(launch(matmulNT, { a, b }).c), bare.subarray(first * N), what);
          const c = () => device.tensor(normal(M * N, 4), [1, M, N]);
          const added = launch(matmulNT, { a, b: plain.alias([1, N, K]), c: c() }).c;
          assertEquals(await bits(launch(matmulNT, { a, b, c: c() }).c), await bits(added), `${what}, added`);
          const dy = device.tensor(normal(M * N, 5), [1, M, N]);
          const dx = launch(matmulNN, { a: dy, b: plain.alias([1, N, K]) }).c;
          assertEquals(await bits(launch(matmulNN, { a: dy, b }).c), await bits(dx), `${what}, the gradient of x`);
        }
        for (const tensor of [laid, plain, all, bias]) tensor.dispose();
      }
      device.close();
    });
  }
}

for (const dtype of TYPES) {
  Deno.test(`a matrix in panels is written and read row by row, also in parts: ${dtype}`, async () => {
    const device = await CpuDevice.create({ threads: 1, guards: true });
    for (const [N, K] of [[1, 32], [7, 64], [33, 96], [50, 32]]) {
      const values = normal(N * K, 6),
        [laid, plain] = [true, false].map((panels) =>
          device.tensor(values, [N, K], { dtype: dtype === "q8_0" ? "q8_0" : dtype, panels })
        );
      assertEquals(await laid.data(), await plain.data());
      if (dtype === "f32") assertEquals(await laid.data(), values);
      for (const [offset, length] of [[0, 32], [N * K - 32, 32], [N > 1 ? 32 : 0, N > 1 ? N * K - 32 : 32]]) {
        const part = normal(length, offset + 7);
        for (const { storage } of [laid, plain]) device.write(new Storage(storage.block, length, offset), part);
        assertEquals(await laid.data(), await plain.data(), `[${N},${K}], ${length} from ${offset} on`);
        const read = await device.read(new Storage(laid.storage.block, length, offset));
        assertEquals(read, (await laid.data()).slice(offset, offset + length));
      }
      for (const ids of [[0], [N - 1, 0, N >> 1]]) {
        const of = device.tensor(Int32Array.from(ids), [ids.length]), all = await laid.data();
        assertEquals(
          [...await embedding(of, laid).data()],
          ids.flatMap((id) => [...all.subarray(id * K, (id + 1) * K)]),
        );
      }
    }
    device.close();
  });
}

Deno.test("ops other than products reject a matrix in panels, with the op's name", async () => {
  const device = await CpuDevice.create({ threads: 1 }), x = device.tensor(normal(64, 1), [2, 32]);
  const square = device.tensor(normal(1024, 1), [32, 32]);
  for (const dtype of TYPES) {
    const weight = device.tensor(normal(32 * 32, 2), [32, 32], { dtype, panels: true });
    const why = dtype === "f32"
      ? "is stored in panels, which only linear, embedding and matmul's right side read"
      : dtype;
    for (
      const [op, run] of Object.entries({
        add: () => add(weight, weight),
        permute: () => permute(weight, [1, 0]),
        reshape: () => reshape(weight, [1024]),
        matmul: () => matmul(weight, square),
      })
    ) {
      const { message } = assertThrows(run, DeviceError);
      assertEquals([message.includes(`apply ${op} to`), message.includes(why)], [true, true], message);
    }
    assertThrows(
      () => linear(device.tensor(normal(64, 1), [1, 64]), weight.alias([16, 64])),
      DeviceError,
      "is stored in panels of [32,32], which cannot take another",
    );
    assertEquals(matmul(x, weight).shape, [2, 32]);
    assertThrows(() => new AdamW([["w", weight]]), Error, "w is stored in");
  }
  const [x3, y3] = [
    device.tensor(normal(1024, 1), [1, 32, 32]),
    device.tensor(normal(1024, 1), [32, 32], { dtype: "bf16" }),
  ];
  assertThrows(() => launch(transpose, { x: x3, y: y3.alias([1, 32, 32]) }), DeviceError, "y is bf16, expected f32");
  assertThrows(() => device.tensor(normal(32, 1), [32], { panels: true }), ShapeError, "expected a matrix");
  assertThrows(() => device.tensor(normal(66, 1), [2, 33], { dtype: "q8_0" }), ShapeError, "a multiple of 32 long");
  device.close();
});

const CONFIG = { vocabSize: 67, blockSize: 12, nLayer: 2, nHead: 2, nEmbd: 32 };
const copies = (model: GPT) =>
  [...model.parameters()].filter(({ storage: { block, offset } }) => block.laid?.has(offset));

Deno.test("a model made for inference stores only panels, and computes and is read like a model made for training", async () => {
  const device = await CpuDevice.create({ threads: 2, guards: true });
  const [training, inference] = [false, true].map((inference) =>
    new GPT(CONFIG, { device, seed: 5, inference }).eval()
  );
  const all = new Map(training.namedParameters());
  for (const [name, weight] of inference.namedParameters()) {
    assertEquals(await weight.data(), await all.get(name)!.data(), name);
    const laid = name.endsWith("weight") && !/ln_|wpe/.test(name);
    assertEquals([name, weight.storage.panels !== undefined, weight.requiresGrad], [name, laid, false]);
  }
  const tokens = device.tensor([3, 1, 4, 1, 5, 9, 2, 6], [1, 8], { dtype: "i32" });
  const [a, b] = await Promise.all(
    [training, inference].map((model) => bits(noGrad(() => model.forward(tokens)).logits)),
  );
  assertEquals(a, b);
  const text = (model: GPT) => Array.fromAsync(generate(model, [1, 2, 3], { maxNewTokens: 15, seed: 3 }));
  assertEquals(await text(training), await text(inference));
  assertEquals([copies(training).length, copies(inference).length], [9, 0]);
  assertThrows(() => inference.unfreeze(), ConfigError, "weight is stored in panels, which cannot be trained");
  const { bytes } = device.memory(), third = new GPT(CONFIG, { device, seed: 5 });
  await text(third);
  third.dispose();
  assertEquals(device.memory().bytes, bytes);
  device.close();
});

Deno.test("a generating model gets copies in panels, which its next optimizer step frees, captured or not", async () => {
  const device = await CpuDevice.create({ threads: 1 }), model = new GPT(CONFIG, { device, seed: 5 });
  const optimizer = model.configureOptimizers({ weightDecay: 0, learningRate: 1e-2, betas: [0.9, 0.99] });
  const tokens = device.tensor([3, 1, 4, 1], [1, 4], { dtype: "i32" });
  const text = () => Array.fromAsync(generate(model, [1, 2, 3], { maxNewTokens: 9, temperature: 0 }));
  const step = () => {
    using _ = device.scope();
    model.forward(tokens, tokens).loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
  };
  step();
  const { bytes } = device.memory();
  await text();
  assertEquals(copies(model).length, 9);
  const more = device.memory().bytes - bytes;
  step();
  assertEquals([copies(model).length, device.memory().bytes], [0, bytes]);
  assert(more > 4 * model.numParameters({ nonEmbedding: true }) * 0.9);
  using update = device.capture(() => optimizer.update());
  await text();
  assertEquals(copies(model).length, 9);
  optimizer.prepare();
  update.replay();
  assertEquals(copies(model).length, 0);
  device.close();
});

Deno.test("generation continues with new weights if they change in the middle of a text", async () => {
  const texts = await Promise.all([true, false].map(async (copied) => {
    const device = await CpuDevice.create({ threads: 1 });
    if (!copied) Object.defineProperty(device, "panelWidth", { value: 0 });
    const model = new GPT({ ...CONFIG, tieWordEmbeddings: false }, { device, seed: 5 }),
      ids: number[] = [],
      head = model.lm_head.weight;
    for await (const id of generate(model, [1], { maxNewTokens: 10, temperature: 0 })) {
      if (ids.push(id) !== 5) continue;
      assertEquals(copies(model).length, copied ? 9 : 0);
      head.set((await head.data()).map((value) => -value)); // the most likely token is now the least likely
      assertEquals(copies(model).length, copied ? 8 : 0);
    }
    device.close();
    return ids;
  }));
  assertEquals(texts[0], texts[1]);
  assert(texts[0][5] !== texts[0][4]);
});
