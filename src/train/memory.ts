/**
 * Estimates the memory of a training run by running it on a device that only counts allocations. The estimate therefore
 * follows every change of the code.
 */
import { gib, type Needs, shortage } from "../engine/capacity.ts";
import type { Device } from "../engine/device.ts";
import { DryDevice } from "../device/dry.ts";
import { DeviceError } from "../errors.ts";
import { completeConfig, GPT, type GPTConfig, type GPTOptions } from "../gpt.ts";
import { RandomGenerator } from "../random/mod.ts";
import { type TrainerOptions, trainerOptions } from "./options.ts";
import type { Task } from "./task.ts";
import { Trainer } from "./trainer.ts";

/** The training run to estimate. */
export interface TrainingOptions extends Partial<TrainerOptions> {
  /** The device that will train. The estimate runs nothing on it. */
  readonly device: Device;
  /** The model, if it is on the device already. Its bytes are in use and not counted twice. */
  readonly model?: GPT;
  /** How the model's matrices are stored. Default: f32. */ readonly weights?: GPTOptions["weights"];
  /** Applies an adapter to a model, so that only the adapter is trained. Default: the model's weights are trained. */
  readonly adapt?: (model: GPT) => void;
  /**
   * Free memory of the machine in bytes, which may be less than the device's capacity. Default: only the capacity
   * counts.
   */
  readonly memory?: number;
  /**
   * Creates the task for a model, on the model's device. It must supply two updates of its largest batches. Default:
   * language modelling.
   */
  readonly task?: (model: GPT) => Task;
}

/** The memory and the work of a training run on a device. */
export interface TrainingNeeds extends Needs {
  /** Floating-point operations (multiplications and additions) of an update. */
  readonly flops: number;
}

/**
 * Estimates the memory and FLOPs of training by making two updates, each after an evaluation, on a device that neither
 * stores nor computes. The second update matters because it finds different memory free than the first. Takes some
 * milliseconds for any sizes. Not counted: kernels, memory of the host, and the losses of an evaluation after its first
 * batch (64 bytes each).
 *
 * @throws {ConfigError} when the model's configuration is not valid, or an option is out of its range
 */
export async function trainingNeeds(
  config: Partial<GPTConfig>,
  { device, model: _, memory: __, task, weights, adapt, ...options }: TrainingOptions,
): Promise<TrainingNeeds> {
  const dry = new DryDevice(device), generator = new RandomGenerator(0);
  const model = new GPT(config, { device: dry, generator, weights });
  adapt?.(model);
  const text = new Int32Array(model.config.blockSize + 1), short = { maxIters: 1, evalInterval: 1, evalIters: 1 };
  const all = { ...options, ...short, logInterval: 1, evalOnly: false, generator };
  const trainer = new Trainer(model, task?.(model) ?? { train: text, val: text }, all);
  let before = 0, flops = 0;
  for await (const { kind } of trainer.run()) {
    if (kind === "evaluation") before = dry.flops;
    else if (kind === "step") flops = dry.flops - before;
  }
  return { bytes: dry.memory().reserved, largest: dry.largest, flops };
}

/**
 * Checks that a model can be trained in a device's memory, before any of it is allocated.
 *
 * @throws {DeviceError} when training does not fit into the memory left on the device; the message has both figures
 * @example
 * ```ts
 * import { assertRejects } from "@std/assert";
 * import { checkTraining, createDevice } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const gpt2 = { vocabSize: 50257, blockSize: 1024, nLayer: 12, nHead: 12, nEmbd: 768 };
 * await assertRejects(() => checkTraining(gpt2, { device, batchSize: 8 })); // 10 GiB
 * await checkTraining({ ...gpt2, blockSize: 16 }, { device, batchSize: 1 }); // 2.9 GiB
 * device.close();
 * ```
 */
export async function checkTraining(config: Partial<GPTConfig>, options: TrainingOptions): Promise<void> {
  const { device, model, memory = Infinity, task: _, weights: __, adapt, ...numbers } = options,
    { all, one } = device.capacity;
  if (all === Infinity && one === Infinity) return;
  const blocks = new Set(model?.parameters().map(({ storage }) => storage.block));
  const reused = blocks.values().reduce((sum, { capacity, dtype }) => sum + capacity * device.bytesOf(dtype), 0);
  const { batchSize } = trainerOptions(numbers);
  const least = adapt ? undefined : shortage(floor(completeConfig(config), batchSize), device, { least: true, reused });
  let why = least;
  if (!why) {
    const needs = await trainingNeeds(config, options), more = needs.bytes - reused;
    why = shortage(needs, device, { reused });
    if (more > memory) why ??= `takes ${gib(more)} more, and the machine has ${gib(memory)} left`;
  }
  if (why) throw new DeviceError(`Training this model ${why}\nLower n_layer, n_embd, block_size or batch_size`);
}

/**
 * A lower bound for the memory of training: the matrices of each block (4C² + 2CI elements) with their gradients and
 * AdamW's two averages, and for B sequences of T tokens the logits and one MLP's hidden layer. It rejects a model that
 * is far too large before a model of that size is created for the estimate.
 */
function floor(
  { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, nInner: I }: Required<GPTConfig>,
  B: number,
): Needs {
  const matrices = L * (4 * C * C + 2 * C * I), [logits, hidden] = [B * T * V, B * T * I];
  return { bytes: 4 * (4 * matrices + logits + hidden), largest: 4 * Math.max(matrices, logits, hidden) };
}
