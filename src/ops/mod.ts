/** Every differentiable operation, one a file. */
export { cachedAttention } from "./cached_attention.ts";
export { causalSelfAttention } from "./causal_self_attention.ts";
export { crossEntropy } from "./cross_entropy.ts";
export { logSoftmax } from "./log_softmax.ts";
export { softmax } from "./softmax.ts";
