/**
 * Estimates the memory of generating with a model. The estimate runs the generation on a device that counts bytes and
 * computes nothing, as the estimate for training does (train/memory.ts). A model that does not fit is refused, with the
 * figures, before it is read or made.
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

/** The options of generation and of loading that affect memory. */
export interface InferenceOptions
  extends Pick<SequencesOptions, keyof SamplingOptions | "logprobs" | "topLogprobs" | "numReturnSequences" | "cache"> {
  /** The device that the model is meant for. Nothing is computed on it. */
  readonly device: Device;
  /** How weight matrices are stored; default f32. */
  readonly weights?: GPTOptions["weights"];
  /**
   * Whether the model will be made with `inference: true`; otherwise its first generation copies f32 matrices. Default
   * true.
   */
  readonly inference?: boolean;
  /** Tokens of the prompt; default: one less than the block size, so that every kind of pass is counted. */
  readonly promptLength?: number;
  /** Tokens to generate. Default 3, the last of which is generated from a text longer than the block size. */
  readonly maxNewTokens?: number;
  /** What happens if the text is longer than the block size; default crop. */
  readonly overflow?: "crop" | "slide";
}

/**
 * Bytes of weights, of keys and values of a whole block, of what the options need, and of intermediate tensors at their
 * peak.
 */
export type InferenceNeeds = Needs;

/**
 * Estimates memory by making a model and generating on a device that neither stores nor computes. It takes some
 * milliseconds for any size. Compiled kernels and the host's memory are not counted.
 *
 * @throws {ConfigError} if the config is not valid
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
 * Checks that generating with a model fits into a device's memory, before the model is read or made.
 *
 * @throws {DeviceError} if it does not fit into the memory that the device has left; the message has both figures
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
    const rounded = await inferenceNeeds(config, { ...options, weights: "bf16" });
    if (!shortage(rounded, device)) advice = `\nWith weights in bf16 it takes ${gib(rounded.bytes)}`;
  }
  throw new DeviceError(`Generating with this model, weights in ${weights}, ${why}${advice}`);
}

/** A lower bound of the memory, for models that are much too large: matrices, and the keys and values of a block. */
function floor(config: Partial<GPTConfig>, weights: StorageType, cache: CacheType): InferenceNeeds {
  const { vocabSize: V = 0, blockSize: T = 0, nLayer: L = 0, nEmbd: C = 0 } = config,
    bytes = { f32: 4, i32: 4, bf16: 2, q8_0: 34 / 32 };
  const matrices = 12 * L * C * C + V * C, largest = bytes[weights] * V * C;
  return { bytes: bytes[weights] * matrices + bytes[cache] * 2 * L * T * C, largest };
}
