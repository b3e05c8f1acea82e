/**
 * The memory that is estimated for generation, compared with the memory that the same generation has taken in the end.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { openDevice, processorTime } from "../testing.ts";
import { DeviceError } from "../../src/errors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { checkInference, inferenceNeeds } from "../../src/generate/memory.ts";
import { generate, generateSequences } from "../../src/generate/generate.ts";

const CONFIG = { vocabSize: 67, blockSize: 19, nLayer: 3, nHead: 3, nEmbd: 96, bias: true };
const GPT2_XL = { vocabSize: 50257, blockSize: 1024, nLayer: 48, nHead: 25, nEmbd: 1600 };

for (const name of Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["cpu"]) {
  const kinds = [
    { weights: "f32", inference: false },
    ...(["f32", "bf16", "q8_0"] as const).map((weights) => ({ weights, inference: true })),
  ] as const;
  for (const { weights, inference } of kinds) {
    for (const promptLength of [undefined, 1, 7, 30]) {
      const what = promptLength === undefined ? "a whole block" : `${promptLength} tokens`;
      Deno.test(`the memory that generation takes is estimated to the byte: ${weights}${inference ? "" : " for training"}, from ${what} (${name})`, async () => {
        const device = await openDevice(name, { threads: 2 });
        const needs = await inferenceNeeds(CONFIG, { device, weights, inference, promptLength });
        assertEquals(device.memory(), { tensors: 0, bytes: 0, reserved: 0 }, "the rehearsal has touched the device");
        const model = new GPT(CONFIG, { device, weights, inference }).eval(),
          prompt = new Int32Array(promptLength ?? 18);
        await Array.fromAsync(generate(model, prompt, { maxNewTokens: 3 }));
        assertEquals(needs.bytes, device.memory().reserved);
        assert(needs.largest < needs.bytes);
        device.close();
      });
    }
  }
}

const asked = { repetitionPenalty: 1.2, topLogprobs: 9 };
for (
  const options of [{ overflow: "crop" }, { overflow: "slide", cache: "bf16", ...asked }, {
    overflow: "crop",
    ...asked,
  }] as const
) {
  Deno.test(`the memory of several texts at once is estimated to the byte, also beyond the block size: ${Object.entries(options)}`, async () => {
    const device = await createDevice("cpu", { threads: 2 }), many = { numReturnSequences: 3, ...options };
    const needs = await inferenceNeeds(CONFIG, { device, promptLength: 5, maxNewTokens: 40, ...many });
    const model = new GPT(CONFIG, { device, inference: true }).eval();
    await Array.fromAsync(generateSequences(model, [1, 2, 3, 4, 5], { maxNewTokens: 40, ...many }));
    assertEquals(needs.bytes, device.memory().reserved);
    device.close();
  });
}

Deno.test("the estimate counts two bytes less for each key and value in bf16", async () => {
  const device = await createDevice("cpu", { threads: 1 }), options = { device, numReturnSequences: 5 };
  const [f32, bf16] = await Promise.all(
    (["f32", "bf16"] as const).map((cache) => inferenceNeeds(CONFIG, { ...options, cache })),
  );
  const { blockSize, nLayer, nEmbd } = CONFIG,
    numbers = 5 * 2 * nLayer * blockSize * nEmbd,
    less = f32.bytes - bf16.bytes;
  assert(less >= 2 * numbers && less < 2.5 * numbers, `${less} bytes of ${numbers} numbers`); // f32 is rounded up
  device.close();
});

Deno.test("a model that does not fit is rejected with figures, before anything is allocated", async () => {
  const device = await createDevice("cpu", { threads: 1 }), begin = processorTime();
  const refused = async (config: Partial<GPTConfig>, weights: "f32" | "bf16", message: string) =>
    (await assertRejects(() => checkInference(config, { device, weights }), DeviceError, message)).message;
  // GPT-2 XL's matrices, 12·C² per layer and V·C, take two bytes per element; keys and values, 2·C per token and layer,
  // take four: 3.48 GiB.
  const { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C } = GPT2_XL, gib = 2 ** 30;
  const least = (2 * (12 * L * C * C + V * C) + 4 * 2 * L * T * C) / gib;
  const { bytes } = await inferenceNeeds(GPT2_XL, { device, weights: "bf16" });
  assert(bytes / gib > least && bytes / gib < least + 0.25, `${bytes} bytes, at least ${least} GiB`);
  await checkInference(GPT2_XL, { device, weights: "bf16" });

  const figures = "weights in f32, takes more than 6.38 GiB, and the cpu device has 4 GiB"; // 4 bytes a number
  const message = await refused(GPT2_XL, "f32", figures);
  assertEquals(
    message.split("\n")[1],
    `With weights in bf16 it takes ${Number((bytes / gib).toPrecision(3))} GiB`,
  );
  assert(!(await refused({ ...GPT2_XL, nLayer: 96 }, "f32", "takes more than")).includes("bf16"));
  await refused({ ...GPT2_XL, nLayer: 96 }, "bf16", "weights in bf16, takes more than");
  await refused({ ...GPT2_XL, nLayer: 1e9 }, "bf16", "takes more than");
  // This exceeds the memory by little, so only the rehearsal notices it, not the quick check before. With a block size
  // of 1024, keys and values of 48 layers take 0.6 GiB.
  await refused({ ...GPT2_XL, blockSize: 1800 }, "bf16", "weights in bf16, takes 4.");
  assert(processorTime() - begin < 5000);
  assertEquals(device.memory().reserved, 0);

  const quarter = device.empty([2 ** 28]); // a reservation: its pages are never touched
  await refused(GPT2_XL, "bf16", "and the cpu device has 4 GiB, of which 1 GiB are in use");
  quarter.dispose();
  await checkInference(GPT2_XL, { device, weights: "bf16" });
  device.close();
});

Deno.test("a device that limits the size of a buffer rejects a larger table", async () => {
  const device = await createDevice("cpu", { threads: 1 });
  Object.defineProperty(device, "capacity", { value: { all: Infinity, one: 2 ** 27, limit: "its limit" } });
  const table = { vocabSize: 50257, blockSize: 64, nLayer: 1, nHead: 12, nEmbd: 768 }; // wte: 147 MiB in f32
  await assertRejects(
    () => checkInference(table, { device }),
    DeviceError,
    "takes a buffer of more than 0.144 GiB, and its limit is 0.125 GiB\nWith weights in bf16 it takes",
  );
  await checkInference(table, { device, weights: "bf16" });
  device.close();
});
