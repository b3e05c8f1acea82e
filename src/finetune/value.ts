/**
 * The value function of PPO estimates, before each token of a text, the sum of the rewards still to come. It can be a
 * head on the policy's body, which costs next to nothing. Or it can be a separate model, such as a copy of the reward
 * model: that doubles the work, but its training does not affect the policy's body.
 */
import type { Tensor } from "../engine/tensor.ts";
import { ConfigError } from "../errors.ts";
import { GPT } from "../gpt.ts";
import { Linear, Module } from "../nn/mod.ts";
import { reshape } from "../ops/reshape.ts";

/** A value function. Its parameters are trained with the policy's. */
export interface ValueFunction extends Module {
  /**
   * Estimates the sum of the rewards still to come after each token of each text.
   *
   * @param hidden the policy's final hidden states, f32 (B, T, C)
   * @param tokens i32 (B, T)
   * @returns f32 (B, T)
   */
  values(hidden: Tensor, tokens: Tensor): Tensor;
  /** Creates a value function with the same sizes for another policy, to estimate memory. */
  like(policy: GPT): ValueFunction;
}

/**
 * A head on the policy's body: hidden · wᵀ + b. Its parameters are `v_head.summary.weight` (1, C) and
 * `v_head.summary.bias` (1), as in TRL's `AutoModelForCausalLMWithValueHead`. They are initialised with zeros, as in
 * Ziegler et al. 2019 (arXiv:1909.08593).
 */
export class ValueHead extends Module implements ValueFunction {
  /** The layer, under its name in TRL. */ readonly v_head: { readonly summary: Linear };

  /** Creates a head for a policy's hidden states. */
  constructor({ config: { nEmbd }, device }: GPT) {
    super();
    this.v_head = { summary: zeros(new Linear(nEmbd, 1, { device, initialize: false })) };
  }
  values(hidden: Tensor): Tensor {
    return valuesOf(this.v_head.summary, hidden);
  }
  like(policy: GPT): ValueHead {
    return new ValueHead(policy);
  }
}

/** A separate model with a head: `GPT2ForSequenceClassification` with one label, evaluated at every token. */
export class ValueModel extends Module implements ValueFunction {
  /** (1, C) */ readonly score: Linear;

  /**
   * Creates a value function from a reward model and its head, or from any model with a new head of zeros.
   *
   * @param model sees the same tokens as the policy; all of its parameters become trainable
   * @param score the head, such as `score` of a `SequenceClassifier` with one label; default: zeros
   * @throws {ConfigError} when the head does not have exactly one label
   */
  constructor(readonly model: GPT, score?: Linear) {
    super();
    const { config: { nEmbd }, device } = model;
    this.score = score ?? zeros(new Linear(nEmbd, 1, { device, bias: false, initialize: false }));
    const { shape: [labels, width] } = this.score.weight;
    if (labels !== 1 || width !== nEmbd) {
      throw new ConfigError(
        `A value model's head is [${labels},${width}]; expected [1,${nEmbd}]: one number for a text`,
      );
    }
    this.unfreeze();
    if (!model.config.tieWordEmbeddings) model.lm_head.freeze(); // values need no logits of next tokens
  }
  values(_: Tensor, tokens: Tensor): Tensor {
    using scope = tokens.device.scope();
    return scope.keep(valuesOf(this.score, this.model.hidden(tokens)));
  }
  like({ device }: GPT): ValueModel {
    return new ValueModel(new GPT(this.model.config, { device, initialize: false }));
  }
}

function zeros(layer: Linear): Linear {
  for (const { device, storage } of layer.parameters()) device.fill(storage, () => {});
  return layer;
}

function valuesOf(score: Linear, hidden: Tensor): Tensor {
  using scope = hidden.device.scope();
  const [B, T] = hidden.shape;
  return scope.keep(reshape(score.forward(hidden), [B, T])); // (B, T, 1)
}
