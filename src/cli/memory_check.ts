/** Refuses a model that cannot be trained in a device's memory, before any of it is made. */
import { DeviceError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";

const GIB = 2 ** 30;
/** What 32-bit WebAssembly addresses reach. */
const CPU_MEMORY = 4 * GIB;

/**
 * At least so many bytes are alive at the end of a forward pass of B sequences: for each parameter its weight, gradient and
 * AdamW's two averages, and what the backward pass needs, in float32.
 */
export function trainingBytes(config: Omit<GPTConfig, "dropout">, batchSize: number): number {
  const { vocabSize: V, blockSize: T, nLayer: L, nEmbd: C, bias } = config;
  // Per block: attention 3C² + C², MLP 4C² + 4C², two layer norms; with biases (3 + 1 + 4 + 1) C and 2C more.
  const parameters = (V + T) * C + L * (12 * C * C + (bias ? 13 : 2) * C) + (bias ? 2 : 1) * C;
  // Per token and block: two norms' outputs and two sums C each, qkv 3C, attention C, the MLP's hidden layer 4C twice.
  const activations = batchSize * T * (L * 16 * C + V);
  return 4 * (4 * parameters + activations);
}

/** @throws {DeviceError} when the model surely does not fit */
export function checkMemory(config: Omit<GPTConfig, "dropout">, batchSize: number, deviceName: string): void {
  const bytes = trainingBytes(config, batchSize);
  if (deviceName !== "cpu" || bytes <= CPU_MEMORY) return;
  throw new DeviceError(
    `Training this model does not fit: it takes at least ${(bytes / GIB).toFixed(1)} GiB, and the cpu device has ` +
      `${CPU_MEMORY / GIB} GiB\nLess of n_layer, n_embd, block_size or batch_size takes less.`,
  );
}
