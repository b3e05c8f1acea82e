/** What training will take, found by doing it on a device that only counts: no list of tensors to keep in step with the code. */
import type { Device } from "../engine/device.ts";
import { DryDevice } from "../device/dry.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import { Generator } from "../random/mod.ts";
import { Trainer } from "./trainer.ts";
import type { TrainerOptions } from "./options.ts";

/** What {@linkcode rehearse} has counted. */
export interface Needs {
  /** Bytes of the device's memory at the most, those waiting in its pool included. */
  readonly bytes: number;
  /** Bytes of the largest storage. */
  readonly largest: number;
  /** Multiplications and additions of an update. */
  readonly flops: number;
}

/**
 * Two updates, with an evaluation before each, for the second finds other memory free than the first. Takes some
 * milliseconds, whatever the sizes. Not counted: the losses of an evaluation's further batches, 64 bytes each, kernels, and
 * what the host holds.
 *
 * @param device what the training is meant for; nothing happens on it
 */
export async function rehearse(config: GPTConfig, options: Partial<TrainerOptions>, device: Device): Promise<Needs> {
  const dry = new DryDevice(device), generator = new Generator(0);
  const model = new GPT(config, { device: dry, generator });
  const text = new Int32Array(config.blockSize + 1), short = { maxIters: 1, evalInterval: 1, evalIters: 1 };
  const all = { ...options, ...short, logInterval: 1, evalOnly: false, generator };
  const trainer = new Trainer(model, { train: text, val: text }, all);
  let before = 0, flops = 0;
  for await (const { kind } of trainer.run()) {
    if (kind === "evaluation") before = dry.flops;
    else if (kind === "step") flops = dry.flops - before;
  }
  return { bytes: dry.memory().reserved, largest: dry.largest, flops };
}
