/** Refuses a model that cannot be trained in a device's memory, before any of it is made. */
import { DeviceError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";

const GIB = 2 ** 30;
/** What 32-bit WebAssembly addresses reach. */
const CPU_MEMORY = 4 * GIB;

/**
 * At least so many bytes are taken by a step with batches of B sequences, in float32: for each parameter its first storage,
 * then, side by side for the optimizer, weight, gradient and AdamW's two averages; and what is alive when the backward pass
 * comes to the last block.
 */
export function trainingBytes(config: Omit<GPTConfig, "dropout">, batchSize: number): number {
  const { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, bias } = config;
  // Per block: attention 3C² + C², MLP 4C² + 4C², two layer norms; with biases (3 + 1 + 4 + 1) C and 2C more.
  const parameters = (V + T) * C + L * (12 * C * C + (bias ? 13 : 2) * C) + (bias ? 2 : 1) * C;
  // Per token and block: two norms' outputs and two sums C each, qkv 3C, attention C, the MLP's hidden layer 4C twice.
  // Once: the logits and their gradient V each, the gradient of the hidden layer 4C twice.
  const activations = batchSize * T * (L * 16 * C + 2 * V + 8 * C);
  return 4 * (5 * parameters + activations);
}

/** @throws {DeviceError} when the model surely does not fit */
export function checkMemory(config: Omit<GPTConfig, "dropout">, batchSize: number, deviceName: string): void {
  const bytes = trainingBytes(config, batchSize);
  if (deviceName !== "cpu" || bytes <= CPU_MEMORY) return;
  throw new DeviceError(
    `Training this model takes at least ${(bytes / GIB).toFixed(1)} GiB, and the cpu device has ${
      CPU_MEMORY / GIB
    } GiB\n` +
      "Lower n_layer, n_embd, block_size or batch_size",
  );
}
