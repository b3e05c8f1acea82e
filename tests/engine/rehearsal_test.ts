/**
 * The memory that a rehearsal estimates for training, compared with the memory that the same training has taken in the
 * end.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { checkTraining, trainingNeeds } from "../../src/train/memory.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { createDevice } from "../../src/device/create.ts";
import { gib } from "../../src/engine/capacity.ts";
import type { Device } from "../../src/engine/device.ts";
import { DeviceError } from "../../src/errors.ts";
import { applyLora, type LoraOptions } from "../../src/finetune/lora.ts";
import { GPT, type GPTConfig, type GPTOptions } from "../../src/gpt.ts";
import { Trainer } from "../../src/train/trainer.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import { openDevice, processorTime } from "../testing.ts";

const CONFIG: GPTConfig = { vocabSize: 65, blockSize: 32, nLayer: 2, nHead: 2, nEmbd: 48, dropout: 0, bias: false };
const SETTINGS: Record<string, Partial<GPTConfig> & Partial<TrainerOptions>> = {
  "plain": {},
  "dropout": { dropout: 0.2 },
  "bias": { bias: true },
  "accumulation": { gradientAccumulationSteps: 3 },
  "a larger batch": { batchSize: 24 },
  "odd sizes, all together": {
    ...{ vocabSize: 67, blockSize: 19, nLayer: 3, nHead: 3, nEmbd: 75, dropout: 0.1, bias: true },
    ...{ batchSize: 5, gradientAccumulationSteps: 2, gradClip: 0 },
  },
  "one layer, mostly parameters": { nLayer: 1, nEmbd: 160, blockSize: 8, batchSize: 1 },
};

/** Returns a setting's config, its options, and a function that trains a model with them on a device. */
function setUp(setting: typeof SETTINGS[string]) {
  const { vocabSize, blockSize, nLayer, nHead, nEmbd, dropout, bias, ...given } = { ...CONFIG, ...setting };
  const config = { vocabSize, blockSize, nLayer, nHead, nEmbd, dropout, bias };
  const options = { batchSize: 4, gradientAccumulationSteps: 1, evalInterval: 2, evalIters: 1, maxIters: 4, ...given };
  const tokens = Int32Array.from({ length: 500 }, (_, i) => i * i % vocabSize);
  const train = async (device: Device) => {
    for await (const _ of new Trainer(new GPT(config, { device }), { train: tokens, val: tokens }, options).run());
  };
  return { config, options, train };
}

for (const name of Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["cpu"]) {
  for (const [what, setting] of Object.entries(SETTINGS)) {
    Deno.test(`the memory that training takes is estimated to the byte: ${what} (${name})`, async () => {
      const device = await openDevice(name, { threads: 2 }), { config, options, train } = setUp(setting);
      const { bytes, largest } = await trainingNeeds(config, { ...options, device });
      assertEquals(device.memory(), { tensors: 0, bytes: 0, reserved: 0 }, "the rehearsal has touched the device");
      await train(device);
      const { reserved } = device.memory();
      device.close();
      // On devices where a read blocks, losses wait in memory to be read together. How many wait depends on how long
      // steps take.
      const waiting = device.readsAtOnce ? 0 : 64 * 2 * options.maxIters;
      assert(Math.abs(reserved - bytes) <= waiting, `${bytes} bytes estimated, ${reserved} taken`);
      assert(largest < bytes);
    });
  }
}

const ADAPTERS: Record<string, [LoraOptions, GPTOptions["weights"]]> = {
  "an adapter": [{ rank: 4, targets: ["c_attn", "c_fc"] }, "f32"],
  "an adapter on bf16, with dropout": [{ rank: 3, targets: "all-linear", dropout: 0.2 }, "bf16"],
  "an adapter on q8_0, with rows of tokens and a norm": [{ trainableTokens: [3, 5], modulesToSave: ["ln_f"] }, "q8_0"],
};
for (const name of Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["cpu"]) {
  for (const [what, [lora, weights]] of Object.entries(ADAPTERS)) {
    Deno.test(`the memory that fine-tuning takes is estimated to the byte: ${what} (${name})`, async () => {
      const device = await openDevice(name, { threads: 2 }), { config, options } = setUp({ nEmbd: 64 });
      const adapt = (model: GPT) => void applyLora(model, lora);
      const { bytes } = await trainingNeeds(config, { ...options, device, weights, adapt });
      const model = new GPT(config, { device, weights }),
        tokens = Int32Array.from({ length: 500 }, (_, i) => i * i % 65);
      adapt(model);
      for await (const _ of new Trainer(model, { train: tokens, val: tokens }, options).run());
      const { reserved } = device.memory();
      const full = await trainingNeeds(config, { ...options, device });
      device.close();
      const waiting = device.readsAtOnce ? 0 : 64 * 2 * options.maxIters;
      assert(Math.abs(reserved - bytes) <= waiting, `${bytes} bytes estimated, ${reserved} taken`);
      assert(bytes < full.bytes);
    });
  }
}

/** A CPU device on a system that has only the given number of bytes. */
async function withMemory(bytes: number): Promise<CpuDevice> {
  const { Memory } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      if (65536 * descriptor.initial > bytes) throw new RangeError("no room");
      super(descriptor);
    }
  };
  try {
    return await CpuDevice.create({ threads: 2 });
  } finally {
    WebAssembly.Memory = Memory;
  }
}

Deno.test("a model that passes the check can be trained, and a model that is rejected cannot", async () => {
  const sizes = { nEmbd: 64, blockSize: 64, nLayer: 3, evalInterval: 100, maxIters: 1 };
  const attempt = async (batchSize: number) => {
    const device = await withMemory(2 ** 26), { config, options, train } = setUp({ ...sizes, batchSize });
    const check = checkTraining(config, { ...options, device }).then(() => "passes", (error) => error.message);
    const result = [await check, await train(device).then(() => "fits", (error) => error.message)];
    device.close();
    return result;
  };
  const device = await withMemory(2 ** 26);
  const bytesOf = async (batchSize: number) => {
    const { config, options } = setUp({ ...sizes, batchSize });
    return (await trainingNeeds(config, { ...options, device })).bytes;
  };
  let fits = 1;
  while (await bytesOf(fits + 1) <= device.capacity.all) fits++;
  let fails = fits + 1;
  // A smaller excess than 1 MiB would fit into the memory that is reserved for kernels.
  while (await bytesOf(fails) < device.capacity.all + 2 ** 20) fails++;
  const needed = await bytesOf(fails) / 2 ** 30;
  device.close();
  assert(fails <= fits + 4, `${fits} sequences fit, ${fails} do not`);
  assertEquals(await attempt(fits), ["passes", "fits"]);
  const [refusal, failure] = await attempt(fails);
  assertStringIncludes(refusal, `Training this model takes ${Number(needed.toPrecision(3))} GiB`);
  assertStringIncludes(failure, "does not fit");
});

Deno.test("a training that does not fit is rejected with figures, before anything is allocated", async () => {
  const gpt2 = { vocabSize: 50257, blockSize: 1024, nLayer: 12, nHead: 12, nEmbd: 768, dropout: 0, bias: true };
  const device = await createDevice("cpu", { threads: 1 }), begin = processorTime();
  const refused = async (config: GPTConfig, batchSize: number, message: string) =>
    (await assertRejects(() => checkTraining(config, { batchSize, device }), DeviceError, message)).message;
  // There are 124,439,808 parameters. Each takes four numbers, and its initial value a fifth: 2.3 GiB. With few
  // activations the training fits.
  await checkTraining({ ...gpt2, blockSize: 16 }, { batchSize: 1, device });
  await checkTraining({ ...gpt2, blockSize: 16 }, { batchSize: 1, device, memory: 3.5 * 2 ** 30 });
  const short = checkTraining({ ...gpt2, blockSize: 16 }, { batchSize: 1, device, memory: 2 ** 31 });
  await assertRejects(() => short, DeviceError, "GiB more, and the machine has 2 GiB left");
  // A parameter takes five numbers: weight, gradient, two averages and initial value. A token takes at least 16·C
  // activations per layer, and 2·V + 8·C besides. That is 10.07 GiB, and storages are rounded up by at most an eighth.
  const least = 4 * (5 * 124439808 + 8 * 1024 * (12 * 16 * 768 + 2 * 50257 + 8 * 768)) / 2 ** 30;
  const message = await refused(gpt2, 8, "Training this model takes 1"),
    takes = Number(/takes (\S+) GiB/.exec(message)![1]);
  assert(takes > least && takes < least * 1.125, `${takes} GiB, at least ${least}`);
  await refused({ ...gpt2, nEmbd: 76800 }, 1, "takes more than 12700 GiB, and the cpu device has 4 GiB");
  await refused({ ...gpt2, nLayer: 1e9 }, 1, "takes more than");
  await refused(gpt2, 1e9, "takes more than");
  assert(processorTime() - begin < 5000);
  assertEquals(device.memory().reserved, 0);
  device.close();
});

Deno.test("a device that limits the size of a buffer rejects a training with larger logits", async () => {
  const device = await createDevice("cpu", { threads: 1 }), { config, options } = setUp({});
  const { largest } = await trainingNeeds(config, { ...options, device });
  const limited = (one: number) =>
    Object.defineProperty(device, "capacity", {
      value: { all: Infinity, one, limit: "its limit" },
      configurable: true,
    });
  await checkTraining(config, { ...options, device: limited(largest) });
  await assertRejects(
    () => checkTraining(config, { ...options, device: limited(largest - 1) }),
    DeviceError,
    `takes a buffer of ${gib(largest)}, and its limit is ${gib(largest - 1)}`,
  );
  device.close();
});

/** Allocates tensors of 1 MiB until they take the given number of bytes. */
function occupy(device: Device, bytes: number): void {
  for (; bytes >= 2 ** 20; bytes -= 2 ** 20) device.empty([2 ** 18]);
}

Deno.test("memory in use on the device is counted, and a model that is already on it is not counted twice", async () => {
  const sizes = { nEmbd: 64, blockSize: 64, nLayer: 3, batchSize: 8 }, { config, options } = setUp(sizes);
  const device = await withMemory(2 ** 26), { all } = device.capacity;
  const { bytes } = await trainingNeeds(config, { ...options, device });
  const fits = () => checkTraining(config, { ...options, device });
  await fits();
  occupy(device, all - bytes);
  await fits();
  device.empty([2 ** 18]);
  const { message } = await assertRejects(fits, DeviceError);
  const used = gib(device.memory().bytes);
  assertStringIncludes(message, `takes ${gib(bytes)}, and the cpu device has ${gib(all)}, of which ${used} are in use`);
  device.close();
});

Deno.test("a model that is already on the device is counted once", async () => {
  const sizes = { nEmbd: 192, blockSize: 16, nLayer: 3, batchSize: 1 }, { config, options } = setUp(sizes);
  const device = await withMemory(2 ** 26), { all } = device.capacity;
  const { bytes } = await trainingNeeds(config, { ...options, device }), model = new GPT(config, { device });
  const there = device.memory().bytes;
  occupy(device, all - bytes);
  assert(there > 2 ** 20, `the model takes ${there} bytes`);
  await checkTraining(config, { ...options, device, model });
  await assertRejects(() => checkTraining(config, { ...options, device }), DeviceError, "are in use");
  device.close();
});

Deno.test("the multiplications of an update equal a count by hand", async () => {
  // Matrices have 12·C² elements per layer, and V·C in the head. A token takes 2 operations per element in forward and
  // 4 in backward. In a layer, attention to a sequence takes 14 · C · T (T + 1) / 2 operations.
  const { config, options } = setUp({}), { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C } = config, B = 4;
  const device = await createDevice("cpu", { threads: 1 }),
    { flops } = await trainingNeeds(config, { ...options, device });
  assertEquals(flops, 6 * B * T * (12 * L * C * C + V * C) + B * L * 14 * C * T * (T + 1) / 2);
  device.close();
});
