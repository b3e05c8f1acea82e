/**
 * Randomness, of two kinds: PyTorch's CPU generator for what is drawn on the host (initial weights, batches, the sampler's
 * noise), and the counter-based Philox for what is drawn on devices (dropout).
 *
 * @module
 */
export { type GeneratorState, RandomGenerator } from "./generator.ts";
export { philox } from "./philox.ts";
