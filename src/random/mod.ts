/**
 * Random numbers, from two generators: PyTorch's CPU generator for numbers drawn on the host (initial weights, batches,
 * the sampler's noise), and the counter-based Philox for numbers drawn on devices (dropout).
 *
 * @module
 */
export { type GeneratorState, RandomGenerator } from "./generator.ts";
export { philox } from "./philox.ts";
