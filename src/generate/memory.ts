/**
 * What generating with a model will take, found by doing it on a device that only counts, as the estimate of a training
 * is (train/memory.ts): so what does not fit is refused with the figures before any of it is read or made.
 */
import { gib, type Needs, shortage } from "../engine/capacity.ts";
import type { Device } from "../engine/device.ts";
import { DryDevice } from "../device/dry.ts";
import { DeviceError } from "../errors.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import type { StorageType } from "../kernel.ts";
import { GPT, type GPTConfig, type GPTOptions } from "../gpt.ts";
import type { CacheType } from "../nn/cache.ts";
import { generateSequences } from "./generate.ts";
import type { SequencesOptions } from "./options.ts";

/** What is to be done with the model: of a generation's options those that take memory, and how the model is made. */
export interface InferenceOptions
  extends Pick<SequencesOptions, keyof SamplingOptions | "logprobs" | "topLogprobs" | "numReturnSequences" | "cache"> {
  /** What it is meant for; nothing happens on it. */
  readonly device: Device;
  /** How its matrices are stored; default f32. */
  readonly weights?: GPTOptions["weights"];
  /** Whether it is made or loaded with this option; else its first generation makes copies of f32 matrices. Default true. */
  readonly inference?: boolean;
  /** Tokens of the prompt; default: one less than the block size, so that every way of reading tokens is counted. */
  readonly promptLength?: number;
  /** How many are added; default 3, of which the last is one too many for the block. */
  readonly maxNewTokens?: number;
  /** What is done past the block size; default crop. */
  readonly overflow?: "crop" | "slide";
}

/** Of the weights, the keys and values of a whole block, what options ask for, and all that the passes make at the most. */
export type InferenceNeeds = Needs;

/**
 * Makes a model and generates, on a device that neither stores nor computes: some milliseconds, whatever the sizes. Not
 * counted: kernels, and what the host holds.
 *
 * @throws {ConfigError} when there is no such model
 */
export async function inferenceNeeds(
  config: Partial<GPTConfig>,
  { device, weights, inference = true, promptLength, ...options }: InferenceOptions,
): Promise<InferenceNeeds> {
  const dry = new DryDevice(device);
  const model = new GPT(config, { device: dry, weights, inference, initialize: false }).eval();
  const prompt = new Int32Array(promptLength ?? Math.max(1, model.config.blockSize - 1));
  for await (const _ of generateSequences(model, prompt, { maxNewTokens: 3, ...options, temperature: 0 }));
  return { bytes: dry.memory().reserved, largest: dry.largest };
}

/**
 * Refuses a model that cannot generate in a device's memory, before any of it is read or made.
 *
 * @throws {DeviceError} when it does not fit into what the device has left; the message has both figures
 * @example
 * ```ts
 * import { assertRejects } from "@std/assert";
 * import { checkInference, createDevice } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const xl = { vocabSize: 50257, blockSize: 1024, nLayer: 48, nHead: 25, nEmbd: 1600 };
 * await assertRejects(() => checkInference(xl, { device })); // 6.6 GiB in f32
 * await checkInference(xl, { device, weights: "bf16" }); // 3.7 GiB
 * device.close();
 * ```
 */
export async function checkInference(config: Partial<GPTConfig>, options: InferenceOptions): Promise<void> {
  const { device, weights = "f32", cache = "f32" } = options, { all, one } = device.capacity;
  if (all === Infinity && one === Infinity) return;
  const why = shortage(floor(config, weights, cache), device, { least: true }) ??
    shortage(await inferenceNeeds(config, options), device);
  if (!why) return;
  let advice = "";
  if (weights === "f32" && !shortage(floor(config, "bf16", cache), device)) {
    const kept = await inferenceNeeds(config, { ...options, weights: "bf16" });
    if (!shortage(kept, device)) advice = `\nWith weights kept in bf16 it takes ${gib(kept.bytes)}`;
  }
  throw new DeviceError(`Generating with this model, weights in ${weights}, ${why}${advice}`);
}

/** What no such model does without: the matrices, and a block's keys and values. So what is far too large is not rehearsed. */
function floor(config: Partial<GPTConfig>, weights: StorageType, cache: CacheType): InferenceNeeds {
  const { vocabSize: V = 0, blockSize: T = 0, nLayer: L = 0, nEmbd: C = 0 } = config,
    bytes = { f32: 4, i32: 4, bf16: 2, q8_0: 34 / 32 };
  const matrices = 12 * L * C * C + V * C, largest = bytes[weights] * V * C;
  return { bytes: bytes[weights] * matrices + bytes[cache] * 2 * L * T * C, largest };
}
