/**
 * Tests what only the WebGPU device has: limits, errors that arrive late, and a device that can be lost. Skipped
 * without an adapter.
 */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import dropoutSource from "../../kernels/dropout/dropout.wgsl.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { openWebGPU } from "../../src/device/adapter.ts";
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import { WebGPUDevice } from "../../src/device/webgpu.ts";
import { DeviceError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { f32, i32, kernel } from "../../src/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { add } from "../../src/ops/mod.ts";
import { philox, RandomGenerator } from "../../src/random/mod.ts";
import { generate } from "../../src/generate/generate.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { devices, openDevice } from "../testing.ts";
import { normal } from "./agree.ts";

/** Computes the four random words of counters 0 to n − 1 with the functions in dropout's shader. */
const philoxWords = kernel({
  name: "philox_words",
  reads: { offset: i32(1) },
  writes: { words: i32("n", 4) },
  params: { seed: "i32", stream: "i32" },
  reference() {},
  gpu: {
    source: `
      struct Params { n: u32, seed: i32, stream: i32 }
      @group(0) @binding(0) var<uniform> params: Params;
      @group(0) @binding(1) var<storage, read> offset: array<i32>;
      @group(0) @binding(2) var<storage, read_write> words: array<vec4u>;
      ${dropoutSource.slice(dropoutSource.indexOf("fn multiply_high"), dropoutSource.indexOf("@compute"))}
      @compute @workgroup_size(64) fn philox_words(@builtin(global_invocation_id) id: vec3u) {
        if (id.x >= params.n) { return; }
        words[id.x] = philox(vec4u(id.x, u32(params.stream), u32(offset[0]), 0u), u32(params.seed));
      }`,
    entry: "philox_words",
    workgroups: ({ n }) => Math.ceil(n / 64),
  },
});

for (const { name, device } of await devices()) {
  if (!(device instanceof WebGPUDevice)) continue;

  Deno.test(`philox: a shader computes the host's words (${name})`, async () => {
    for (const [seed, stream, offset] of [[0, 0, 0], [1337, 3, 7], [2 ** 32 - 1, 2 ** 31, 2 ** 32 - 7]]) {
      const n = 1000, at = device.tensor([offset | 0], [1], { dtype: "i32" });
      const words = device.empty([n, 4], { dtype: "i32" });
      launch(philoxWords, { offset: at, words }, { seed: seed | 0, stream: stream | 0 });
      const expected = Array.from({ length: n }, (_, i) => philox([i, stream, offset, 0], [seed, 0])).flat();
      assertEquals(Array.from(await words.data(), (word) => word >>> 0), expected);
    }
  });

  Deno.test(`webgpu: a storage above the adapter's limit is rejected with the limit's name (${name})`, async () => {
    const length = Math.ceil((device.capacity.one + 1) / 4);
    const error = assertThrows(() => device.empty([length]), DeviceError);
    assertMatch(error.message, /more than the adapter's max(StorageBufferBinding|Buffer)Size, \d+$/);
    assertEquals([...await device.tensor([1], [1]).data()], [1]); // the device still works
  });

  Deno.test(`webgpu: tensors of two devices are rejected, and so is a freed tensor (${name})`, async () => {
    const other = await createDevice("reference"), x = device.tensor([1], [1]), y = device.tensor([1], [1]);
    assertThrows(() => add(x, other.tensor([1], [1])), DeviceError, "is on another device");
    y.dispose();
    await assertRejects(async () => await y.data(), DeviceError, "has been freed");
    assertThrows(() => add(x, y), DeviceError, "has been freed");
  });
}

for (const { name, device } of await devices()) {
  Deno.test(`decoding chooses the reference's tokens, and draws no more noise than it used (${name})`, async () => {
    const config = { blockSize: 8, vocabSize: 7, nLayer: 1, nHead: 2, nEmbd: 8, dropout: 0, bias: false };
    const state = async (device: Device, stop: number) => {
      const model = new GPT(config, { device }), generator = new RandomGenerator(5), tokens: number[] = [];
      for (const weight of model.parameters()) device.write(weight.storage, normal(weight.size)); // scores differ
      for await (const token of generate(model, [1, 2], { maxNewTokens: 40, generator })) {
        if (tokens.push(token) === stop) break;
      }
      return { tokens, generator: generator.getState() };
    };
    const reference = await createDevice("reference");
    for (const stop of [1, 6, 7, 39, 40]) { // inside the cache, at its end, past it; inside a batch and at its end
      assertEquals(await state(device, stop), await state(reference, stop));
    }
  });
}

/** Opens a device. Calling `lose` makes the device unusable, as a failing driver would. */
async function losable(name: string): Promise<{ device: WebGPUDevice; lose: () => void }> {
  const working = await openDevice(name) as WebGPUDevice;
  return { device: working, lose: () => working.gpu.destroy() };
}

const names = (Deno.env.get("NANOGPT_TEST_DEVICES") ?? "").split(",").filter((name) => name.startsWith("webgpu"));
for (const name of names) {
  Deno.test(`webgpu: a lost device is a DeviceError that names the kernel, at every later read and launch (${name})`, async () => {
    const { device, lose } = await losable(name), x = device.tensor([1], [1]), y = add(x, x);
    await y.data();
    lose();
    await assertRejects(() => y.data(), DeviceError, "webgpu: the device was lost in or before add");
    assertThrows(() => add(x, x), DeviceError, "the device was lost");
    device.close();
  });

  Deno.test(`webgpu: the trainer saves its last snapshot if the device is lost (${name})`, async () => {
    const { device, lose } = await losable(name), path = await Deno.makeTempDir();
    const config = { blockSize: 6, vocabSize: 7, nLayer: 1, nHead: 2, nEmbd: 8, dropout: 0, bias: false };
    const tokens = Int32Array.from({ length: 100 }, (_, i) => i * i % 7);
    const data = { train: tokens, val: tokens }, options = { batchSize: 2, evalInterval: 1000, evalIters: 1 };
    const sizes = { ...options, gradientAccumulationSteps: 1, maxIters: 50, logInterval: 1, keepInterval: 0 };
    const newFolder = await RunFolder.create(path, { flags: {}, model: { ...config }, vocabulary: {} });
    const trainer = new Trainer(new GPT(config, { device }), data, { ...sizes, folder: newFolder });
    let seen = -1;
    const error = await assertRejects(async () => {
      for await (const event of trainer.run()) {
        if (event.kind === "step" && event.iter >= 5 && seen < 0) {
          seen = event.iter;
          lose();
        }
      }
    }, DeviceError);
    assertMatch(error.message, /the device was lost[^]*The state of iteration \d+ has been saved/);

    // On another device the run continues from there, to the same weights as a run without the loss.
    const weights = async (folder?: RunFolder) => {
      const device = await openDevice(name), again = new GPT(config, { device });
      const trainer = new Trainer(again, data, { ...sizes, folder });
      if (folder) await trainer.resume();
      assertEquals(trainer.iter > 0, folder !== undefined);
      for await (const _ of trainer.run());
      const values = await Promise.all(again.parameters().map((parameter) => parameter.data()));
      device.close();
      return values;
    };
    assertEquals(await weights(await RunFolder.open(path)), await weights());
    await Deno.remove(path, { recursive: true });
    device.close();
  });
}

Deno.test("webgpu: a missing adapter and a software adapter are rejected with a reason", async () => {
  await assertRejects(() => openWebGPU(undefined), DeviceError, "webgpu: there is no adapter");
  const none = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
  await assertRejects(() => openWebGPU(none, { software: true }), DeviceError, "webgpu: there is no adapter");
  const info = { vendor: "", architecture: "", device: "", description: "llvmpipe", isFallbackAdapter: false };
  const software = { requestAdapter: () => Promise.resolve({ info }) } as unknown as GPU;
  await assertRejects(() => openWebGPU(software), DeviceError, "computes on the processor (llvmpipe)");
});

Deno.test("webgpu: a kernel without a shader is rejected, with its name", async () => {
  const plain = kernel({ name: "plain", reads: { x: f32("n") }, writes: { y: f32("n") }, reference() {} });
  for (const name of names) {
    const device = await openDevice(name);
    assertThrows(() => launch(plain, { x: device.tensor([1], [1]) }), DeviceError, "plain has no WGSL implementation");
    device.close();
  }
});
