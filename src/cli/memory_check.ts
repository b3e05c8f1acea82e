/** Refuses a model that cannot be trained in a device's memory, before any of it is made. */
import type { Device } from "../device/device.ts";
import { DeviceError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";

const GIB = 2 ** 30;
type Sizes = Omit<GPTConfig, "dropout">;

/**
 * At least so many bytes are taken by a step with batches of B sequences, in float32: for each parameter its first storage,
 * then, side by side for the optimizer, weight, gradient and AdamW's two averages; and what is alive when the backward pass
 * comes to the last block.
 */
export function trainingBytes(config: Sizes, batchSize: number): number {
  const { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C } = config, parameters = parametersOf(config);
  // Per token and block: two norms' outputs and two sums C each, qkv 3C, attention C, the MLP's hidden layer 4C twice.
  // Once: the logits and their gradient V each, the gradient of the hidden layer 4C twice.
  const activations = batchSize * T * (L * 16 * C + 2 * V + 8 * C);
  return 4 * (5 * parameters + activations);
}

/** The largest storage of a step: all parameters side by side, the logits, or the MLP's hidden layer. */
export function largestStorage(config: Sizes, batchSize: number): number {
  const { vocabSize: V, blockSize: T, nEmbd: C } = config;
  return 4 * Math.max(parametersOf(config), batchSize * T * Math.max(V, 4 * C));
}

function parametersOf({ vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, bias }: Sizes): number {
  // Per block: attention 3C² + C², MLP 4C² + 4C², two layer norms; with biases (3 + 1 + 4 + 1) C and 2C more.
  return (V + T) * C + L * (12 * C * C + (bias ? 13 : 2) * C) + (bias ? 2 : 1) * C;
}

/** @throws {DeviceError} when the model surely does not fit */
export function checkMemory(
  config: Sizes,
  batchSize: number,
  { name, capacity }: Pick<Device, "name" | "capacity">,
): void {
  const gib = (bytes: number) => `${Number((bytes / GIB).toPrecision(3))} GiB`;
  const bytes = trainingBytes(config, batchSize), largest = largestStorage(config, batchSize);
  const refuse = (why: string) => new DeviceError(`${why}\nLower n_layer, n_embd, block_size or batch_size`);
  if (bytes > capacity.all) {
    throw refuse(`Training this model takes at least ${gib(bytes)}, and the ${name} device has ${gib(capacity.all)}`);
  }
  if (largest > capacity.one) {
    throw refuse(
      `Training this model takes a buffer of ${gib(largest)}, and ${capacity.limit} is ${gib(capacity.one)}`,
    );
  }
}
