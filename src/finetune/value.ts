/**
 * The value function of PPO: before each token of a text, the reward that is still expected. It is a head on the
 * policy's own body, which costs next to nothing, or a model beside it, such as a copy of the reward model, which does not
 * disturb the policy and doubles the work.
 */
import type { Tensor } from "../engine/tensor.ts";
import { ConfigError } from "../errors.ts";
import { GPT } from "../gpt.ts";
import { Linear, Module } from "../nn/mod.ts";
import { reshape } from "../ops/reshape.ts";

/** A value function. Its parameters are trained with the policy's. */
export interface ValueFunction extends Module {
  /**
   * What is expected of each text after each of its tokens.
   *
   * @param hidden the policy's final hidden states, f32 (B, T, C)
   * @param tokens i32 (B, T)
   * @returns f32 (B, T)
   */
  values(hidden: Tensor, tokens: Tensor): Tensor;
  /** One like it for another policy of the same sizes: for the memory that it takes. */
  like(policy: GPT): ValueFunction;
}

/**
 * A head on the policy's body: hidden · wᵀ + b. Its parameters are `v_head.summary.weight` (1, C) and `v_head.summary.bias` (1), as
 * TRL's `AutoModelForCausalLMWithValueHead` has them; they begin with zeros, as in Ziegler et al. 2019 (arXiv:1909.08593).
 */
export class ValueHead extends Module implements ValueFunction {
  /** TRL's place for it. */ readonly v_head: { readonly summary: Linear };

  /** A head for a policy's hidden states. */
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

/** A model of its own with a head: `GPT2ForSequenceClassification` with one label, asked after every token. */
export class ValueModel extends Module implements ValueFunction {
  /** (1, C) */ readonly score: Linear;

  /**
   * A value function that begins as a reward model, or as any model with a new head of zeros.
   *
   * @param model that sees what the policy sees; all of it is trained from now on
   * @param score its head, such as that of a `SequenceClassifier` with one label
   * @throws {ConfigError} when the head has several labels
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
    if (!model.config.tieWordEmbeddings) model.lm_head.freeze(); // nobody asks for its next token
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
