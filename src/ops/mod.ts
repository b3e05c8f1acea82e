/**
 * Operations on tensors, named as in PyTorch. Each file has the equation, the forward pass and the backward pass of one
 * operation.
 *
 * @module
 */
export { add } from "./add.ts";
export { cachedAttention, type Places } from "./cached_attention.ts";
export { causalSelfAttention } from "./causal_self_attention.ts";
export { concat } from "./concat.ts";
export { crossEntropy } from "./cross_entropy.ts";
export { div } from "./div.ts";
export { dropout, type DropoutOptions } from "./dropout.ts";
export { embedding } from "./embedding.ts";
export { exp } from "./exp.ts";
export { gather } from "./gather.ts";
export { gelu } from "./gelu.ts";
export { layerNorm } from "./layer_norm.ts";
export { linear } from "./linear.ts";
export { log } from "./log.ts";
export { type LogprobOptions, logprobs } from "./logprobs.ts";
export { logSoftmax } from "./log_softmax.ts";
export { matmul } from "./matmul.ts";
export { max } from "./max.ts";
export { maximum } from "./maximum.ts";
export { mean } from "./mean.ts";
export { mul } from "./mul.ts";
export { neg } from "./neg.ts";
export { permute } from "./permute.ts";
export { pow } from "./pow.ts";
export type { ReductionOptions } from "./reduce.ts";
export { reshape } from "./reshape.ts";
export { slice } from "./slice.ts";
export { softmax } from "./softmax.ts";
export { sqrt } from "./sqrt.ts";
export { sub } from "./sub.ts";
export { sum } from "./sum.ts";
export { tanh } from "./tanh.ts";
export { transpose } from "./transpose.ts";
export { where } from "./where.ts";
