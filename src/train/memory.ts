/** Refuses a model that cannot be trained in a device's memory, before any of it is made. */
import type { Capacity, Device } from "../engine/device.ts";
import { DeviceError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import type { TrainerOptions } from "./options.ts";
import { type Needs, rehearse } from "./rehearsal.ts";

const GIB = 2 ** 30;

/** @throws {DeviceError} when the training does not fit */
export async function checkMemory(
  config: GPTConfig,
  options: Partial<TrainerOptions> & { readonly batchSize: number },
  device: Device,
): Promise<void> {
  const { all, one } = device.capacity;
  if (all === Infinity && one === Infinity) return;
  checkNeeds(floor(config, options.batchSize), device, "more than ");
  checkNeeds(await rehearse(config, options, device), device);
}

/**
 * What no training does without: the blocks' matrices, 4C² + 2CI each, with gradient and AdamW's two averages, and for B sequences
 * of T tokens the logits and the MLP's hidden layer. So what is far too large is refused before anything is made for a rehearsal.
 */
function floor({ vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, nInner: I = 4 * C }: GPTConfig, B: number): Needs {
  const matrices = L * (4 * C * C + 2 * C * I), [logits, hidden] = [B * T * V, B * T * I];
  return { bytes: 4 * (4 * matrices + logits + hidden), largest: 4 * Math.max(matrices, logits, hidden), flops: 0 };
}

/** @throws {DeviceError} when a device has less than `needs` */
export function checkNeeds(
  { bytes, largest }: Needs,
  { name, capacity }: { readonly name: string; readonly capacity: Capacity },
  atLeast = "",
): void {
  const gib = (bytes: number) => `${Number((bytes / GIB).toPrecision(3))} GiB`;
  const refuse = (why: string) => new DeviceError(`${why}\nLower n_layer, n_embd, block_size or batch_size`);
  if (bytes > capacity.all) {
    throw refuse(`Training this model takes ${atLeast}${gib(bytes)}, and the ${name} device has ${gib(capacity.all)}`);
  }
  if (largest > capacity.one) {
    const takes = `takes a buffer of ${atLeast}${gib(largest)}`;
    throw refuse(`Training this model ${takes}, and ${capacity.limit} is ${gib(capacity.one)}`);
  }
}
