import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CpuDevice } from "../../src/device/cpu.ts";
import { createDevice } from "../../src/device/create.ts";
import { type Device, Storage } from "../../src/engine/device.ts";
import { DeviceError, ShapeError } from "../../src/errors.ts";
import { f32, kernel } from "../../src/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { Tensor } from "../../src/engine/tensor.ts";
import { GPT } from "../../src/gpt.ts";
import { generate } from "../../src/generate/generate.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { add } from "../../src/ops/add.ts";
import { openDevice } from "../testing.ts";

for (const name of ["reference", "cpu"]) {
  const test = (what: string, body: (device: Device) => void | Promise<void>) =>
    Deno.test(`${what} (${name})`, async () => {
      const device = await openDevice(name, { threads: 2 });
      await body(device);
      device.close();
    });

  test("a scope frees the tensors made in it, except those passed to keep", async (device) => {
    const a = device.tensor([1, 2], [2]);
    let kept;
    {
      using outer = device.scope();
      let inner;
      {
        using scope = device.scope();
        add(a, a);
        inner = scope.keep(add(a, a));
      }
      kept = outer.keep(add(inner, a));
      assertEquals(device.memory().tensors, 3);
    }
    assertEquals(device.memory().tensors, 2);
    assertEquals(Array.from(await kept.data()), [3, 6]);
  });

  test("repeated work takes no more memory from the system", (device) => {
    const a = device.tensor(new Float32Array(1000).fill(1), [10, 100], { requiresGrad: true });
    const seed = device.tensor(new Float32Array(1000).fill(1), [10, 100]);
    const step = () => {
      using _ = device.scope();
      add(add(a, a), a).backward(seed);
    };
    for (let i = 0; i < 3; i++) step();
    const before = device.memory();
    for (let i = 0; i < 50; i++) step();
    assertEquals(device.memory(), before);
  });

  test("a freed tensor is rejected, with the op's name", (device) => {
    let lost: Tensor;
    {
      using _ = device.scope();
      lost = device.tensor([1], [1]);
    }
    assertThrows(() => lost.storage, DeviceError, "has been freed");
    assertThrows(() => add(lost, lost), DeviceError, "has been freed");
  });

  test("a scope that is open across an await throws at its end", async (device) => {
    await assertRejects(
      async () => {
        using _ = device.scope();
        await Promise.resolve();
      },
      TypeError,
      "open across an await",
    );
  });

  test("launch takes operands in any order, and rejects operands that would corrupt memory", async (device) => {
    const [x, sum] = [device.tensor([1, 2], [2]), device.tensor([10, 20], [2])];
    launch(accumulate, { x, sum });
    launch(accumulate, { sum, x });
    assertEquals(Array.from(await sum.data()), [12, 24]);
    const other = await createDevice("reference");
    assertThrows(() => launch(accumulate, { x, sum: x }), DeviceError, "sum is written and shares its storage with x");
    assertThrows(() => launch(accumulate, { x, sum: other.tensor([1, 2], [2]) }), DeviceError, "on another device");
    assertThrows(() => launch(accumulate, { x, sum: device.tensor([1], [1]) }), ShapeError, "sum is [1], expected [n]");
    const ids = device.tensor([1, 2], [2], { dtype: "i32" });
    assertThrows(() => launch(accumulate, { x, sum: ids }), DeviceError, "sum is i32, expected f32");
    assertThrows(() => device.tensor([1, 2], [3]), ShapeError, "2 values and [3]: expected 3 values");
    assertThrows(() => new Tensor(x.storage, [3]), ShapeError, "[3] over a storage of 2");
    assertThrows(() => device.empty([2, 0]), ShapeError, "[2,0]");
  });
}

Deno.test("memory after 100 training steps equals memory after 10", async () => {
  const device = await createDevice("cpu", { threads: 2 });
  const model = new GPT({ blockSize: 24, vocabSize: 31, nLayer: 2, nHead: 2, nEmbd: 20, dropout: 0.1 }, { device });
  const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-3, betas: [0.9, 0.99] });
  const ids = device.tensor(Int32Array.from({ length: 72 }, (_, i) => i * i % 31), [3, 24], { dtype: "i32" });
  const steps = async (count: number) => {
    for (let i = 0; i < count; i++) {
      using scope = device.scope();
      const loss = scope.keep(model.forward(ids, ids).loss);
      loss.backward();
      optimizer.step({ gradClip: 1 });
      optimizer.zeroGrad();
      scope[Symbol.dispose]();
      await loss.item();
      loss.dispose();
    }
    return device.memory();
  };
  const after10 = await steps(10);
  assertEquals(await steps(90), after10);
  device.close();
});

Deno.test("a tensor that does not fit into the memory is rejected with figures", async () => {
  const device = await CpuDevice.create({ threads: 1 });
  assertThrows(() => device.empty([2 ** 30]), DeviceError, "does not fit");
  assertEquals(Array.from(await device.tensor([1], [1]).data()), [1]);
  device.close();
});

Deno.test("guards find a kernel that writes one element past its storage", async () => {
  const wrong = kernel({
    name: "wrong",
    reads: { x: f32("n") },
    writes: { y: f32("n") },
    reference() {},
    cpu: { tasks: () => 1, emit: (f, { x, y, n }) => f.f32.store(y, n, f.f32.load(x)) },
  });
  for (const length of [1, 16, 37, 1000]) {
    const device = await CpuDevice.create({ threads: 1, guards: true });
    assertThrows(
      () => launch(wrong, { x: device.tensor(new Float32Array(length), [length]) }),
      DeviceError,
      `wrong wrote outside a storage of ${length}`,
    );
    device.close();
  }
});

Deno.test("guards find nothing in training and decoding, eager and replayed, and the gaps between parameters stay zero", async () => {
  const device = await CpuDevice.create({ threads: 2, guards: true });
  for (const [nEmbd, nHead, blockSize, vocabSize] of [[75, 3, 37, 67], [40, 2, 70, 300]]) {
    const config = { blockSize, vocabSize, nLayer: 2, nHead, nEmbd, dropout: 0.1, bias: true };
    const model = new GPT(config, { device }), tokens = Int32Array.from({ length: 200 }, (_, i) => i * i % vocabSize);
    const options = { batchSize: 5, gradientAccumulationSteps: 2, evalInterval: 2, evalIters: 1, maxIters: 3 };
    const trainer = new Trainer(model, { train: tokens, val: tokens }, options); // one step is eager, the rest replayed
    for await (const _ of trainer.run());
    // The optimizer stores parameters one after another, each padded with zeros up to a multiple of 64 elements. A
    // kernel that works on one parameter must not touch the padding.
    for (const { grad, storage } of model.parameters()) {
      for (const { block, offset, length } of [storage, grad!.storage]) {
        const padding = -length & 63;
        if (padding === 0) continue;
        assertEquals(new Set(await device.read(new Storage(block, padding, offset + length))), new Set([0]));
      }
    }
    const sampling = { maxNewTokens: blockSize + 5, temperature: 0.8, topK: 5 }; // with the cache, and beyond the block size
    assertEquals((await Array.fromAsync(generate(model, [1, 2, 3], sampling))).length, blockSize + 5);
    trainer.dispose();
  }
  device.close();
});

Deno.test("an invalid thread count is rejected", async () => {
  for (const threads of [0, -1, 1.5, NaN, 1000]) {
    await assertRejects(() => CpuDevice.create({ threads }), DeviceError, "expected a whole number from 1 to 256");
  }
  await assertRejects(() => openDevice("gpu"), DeviceError, "No device is called gpu; there are auto, cpu, reference");
});
