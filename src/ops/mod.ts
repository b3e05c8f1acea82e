/** Every differentiable operation, one a file. */
export { cachedAttention } from "./cached_attention.ts";
export { causalSelfAttention } from "./causal_self_attention.ts";
export { crossEntropy } from "./cross_entropy.ts";
export { dropout } from "./dropout.ts";
export { embedding } from "./embedding.ts";
export { gelu } from "./gelu.ts";
export { layerNorm } from "./layer_norm.ts";
export { logSoftmax } from "./log_softmax.ts";
export { softmax } from "./softmax.ts";
