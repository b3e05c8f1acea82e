/** What training will take, found by doing it on a device that only counts: no list of tensors to keep in step with the code. */
import { gib, type Needs, shortage } from "../engine/capacity.ts";
import type { Device } from "../engine/device.ts";
import { DryDevice } from "../device/dry.ts";
import { DeviceError } from "../errors.ts";
import { completeConfig, GPT, type GPTConfig, type GPTOptions } from "../gpt.ts";
import { RandomGenerator } from "../random/mod.ts";
import { type TrainerOptions, trainerOptions } from "./options.ts";
import type { Task } from "./task.ts";
import { Trainer } from "./trainer.ts";

/** What is to be trained, and where. */
export interface TrainingOptions extends Partial<TrainerOptions> {
  /** What it is meant for; nothing happens on it. */
  readonly device: Device;
  /** The model, where it is on the device already: its bytes are in use, and not counted twice. */
  readonly model?: GPT;
  /** How the model's matrices are stored; default f32. */ readonly weights?: GPTOptions["weights"];
  /** Puts on a model what is trained in place of its weights, such as an adapter. Default: the weights are trained. */
  readonly adapt?: (model: GPT) => void;
  /** Bytes that the machine has left, of which a device may have more than there are. Default: as many as the device has. */
  readonly memory?: number;
  /** Makes the task, with its parameters on the model's device and two updates of its largest batches. Default: language modelling. */
  readonly task?: (model: GPT) => Task;
}

/** What training takes of a device. */
export interface TrainingNeeds extends Needs {
  /** Multiplications and additions of an update. */
  readonly flops: number;
}

/**
 * Makes a model and trains it, on a device that neither stores nor computes: two updates, with an evaluation before each, for
 * the second finds other memory free than the first. Takes some milliseconds, whatever the sizes. Not counted: the losses of an
 * evaluation's further batches, 64 bytes each, kernels, and what the host holds.
 *
 * @throws {ConfigError} when there is no such model, or an option is out of its range
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
 * Refuses a model that cannot be trained in a device's memory, before any of it is made.
 *
 * @throws {DeviceError} when it does not fit into what the device has left; the message has both figures
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
 * What no training does without: the blocks' matrices, 4C² + 2CI each, with gradient and AdamW's two averages, and for B sequences
 * of T tokens the logits and the MLP's hidden layer. So what is far too large is refused before anything is made for a rehearsal.
 */
function floor(
  { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, nInner: I }: Required<GPTConfig>,
  B: number,
): Needs {
  const matrices = L * (4 * C * C + 2 * C * I), [logits, hidden] = [B * T * V, B * T * I];
  return { bytes: 4 * (4 * matrices + logits + hidden), largest: 4 * Math.max(matrices, logits, hidden) };
}
