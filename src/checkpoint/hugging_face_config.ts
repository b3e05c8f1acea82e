/**
 * config.json of a GPT-2 in Hugging Face's transformers: GPT2Config's fields, its defaults for those that are missing, and of
 * all that it can say what our model computes
 * (https://huggingface.co/docs/transformers/model_doc/gpt2#transformers.GPT2Config).
 */
import { CheckpointError, ConfigError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import { headFields, type HuggingFaceHead } from "./hugging_face_heads.ts";

type Json = Readonly<Record<string, unknown>>;

/** transformers' names of the activations that the model has, ours first: what computes the same is saved by that. */
const ACTIVATIONS: Readonly<Record<NonNullable<GPTConfig["activation"]>, readonly string[]>> = {
  gelu: ["gelu", "gelu_python"],
  gelu_new: ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"],
  relu: ["relu"],
};
/** Fields that change what is computed, with the only values that our model computes. */
const ONLY: Readonly<Record<string, readonly unknown[]>> = {
  model_type: ["gpt2"],
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  reorder_and_upcast_attn: [false, true], // a way to lose less in 16 bits; the equation is the same
  add_cross_attention: [false],
  is_encoder_decoder: [false],
  quantization_config: [null],
};
/** The last has a second head, which is left out unless it is asked for. */
const ARCHITECTURES = ["GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"];
const CLASSIFIER = "GPT2ForSequenceClassification";
const DROPOUTS = ["resid_pdrop", "embd_pdrop", "attn_pdrop"];
/** Other names that transformers takes. */
const ALIASES: Readonly<Record<string, string>> = {
  n_positions: "max_position_embeddings",
  n_embd: "hidden_size",
  n_head: "num_attention_heads",
  n_layer: "num_hidden_layers",
};

/**
 * The model's config out of config.json.
 *
 * @param path of the file, for messages
 * @param headed whether a head is wanted too, and so models of other heads are read
 * @param onNote takes a line on what our model does otherwise
 * @throws {CheckpointError} when it is of another architecture, or says what our model does not compute
 */
export function fromHuggingFaceConfig(
  json: Json,
  path: string,
  { headed = false, onNote = () => {} }: { headed?: boolean; onNote?: (line: string) => void } = {},
): GPTConfig {
  const refuse = (field: string, expected: string) =>
    new CheckpointError(`${path}: ${field} is ${JSON.stringify(json[field])}; this GPT-2 has only ${expected}`);
  for (const [field, values] of Object.entries(ONLY)) {
    if (Object.hasOwn(json, field) && !values.includes(json[field])) {
      throw refuse(field, values.map((value) => JSON.stringify(value)).join(" or "));
    }
  }
  const { architectures } = json, known = headed ? [...ARCHITECTURES, CLASSIFIER] : ARCHITECTURES;
  if (architectures !== undefined && architectures !== null) {
    if (`${architectures}` === CLASSIFIER && !headed) {
      throw new CheckpointError(
        `${path} is of a classifier, which writes no text: pipeline("text-classification", …) and loadHead read it`,
      );
    }
    if (!(Array.isArray(architectures) && architectures.every((name) => known.includes(name)))) {
      throw refuse("architectures", known.join(" or "));
    }
  } else if (json.model_type !== "gpt2") {
    throw new CheckpointError(`${path} names neither a model_type nor architectures: it may be of any model`);
  }

  const size = (field: string, fallback: number): number => {
    const alias = ALIASES[field], name = alias in json ? alias : field, value = name in json ? json[name] : fallback;
    if (name !== field && field in json && json[field] !== value) throw refuse(alias, `what ${field} says`);
    if (Number.isInteger(value) && value as number > 0 && value as number < 2 ** 31) return value as number;
    throw refuse(name, "whole numbers from 1 to 2147483647");
  };
  const number = (field: string, fallback: number, [least, most]: readonly [number, number]): number => {
    const value = Object.hasOwn(json, field) ? json[field] : fallback;
    if (typeof value === "number" && value >= least && value <= most) return value;
    throw refuse(field, `numbers from ${least} to ${most}`);
  };
  const { activation_function: asked = "gelu_new", tie_word_embeddings: tied = true, n_inner: inner = null } = json;
  const [activation] = Object.entries(ACTIVATIONS).find(([, names]) => names.includes(asked as string)) ?? [];
  if (!activation) throw refuse("activation_function", Object.values(ACTIVATIONS).flat().join(", "));
  if (typeof tied !== "boolean") throw refuse("tie_word_embeddings", "true or false");

  const [dropout, ...others] = DROPOUTS.map((field) => number(field, 0.1, [0, 1]));
  const same = others.every((p) => p === dropout);
  if (!same) {
    onNote(`${path}: ${DROPOUTS.map((field) => `${field} is ${json[field] ?? 0.1}`).join(", ")}; 0 is taken for all`);
  }
  const nEmbd = size("n_embd", 768);
  const config = {
    blockSize: size("n_positions", 1024),
    vocabSize: size("vocab_size", 50257),
    nLayer: size("n_layer", 12),
    nHead: size("n_head", 12),
    nEmbd,
    nInner: inner === null ? 4 * nEmbd : size("n_inner", 4 * nEmbd),
    dropout: same ? dropout : 0,
    bias: true,
    activation: activation as GPTConfig["activation"],
    layerNormEpsilon: number("layer_norm_epsilon", 1e-5, [1e-30, 1]),
    tieWordEmbeddings: tied,
  };
  if (nEmbd % config.nHead !== 0) throw refuse("n_head", `divisors of n_embd, which is ${nEmbd}`);
  return config;
}

/**
 * What config.json says of a model: every field that GPT2Config would not fill in the same way.
 *
 * @param ids of the tokens at which a text begins and ends, as {@linkcode tokenIds} gives them
 */
export function toHuggingFaceConfig(
  config: Required<GPTConfig>,
  { dtype, ids, head }: { dtype: string; ids: Json; head?: HuggingFaceHead },
): Json {
  const { blockSize, vocabSize, nLayer, nHead, nEmbd, nInner, dropout } = config;
  if (!Object.hasOwn(ACTIVATIONS, config.activation)) {
    throw new ConfigError(`transformers has no name for the activation ${config.activation}`);
  }
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    dtype,
    vocab_size: vocabSize,
    n_positions: blockSize,
    n_ctx: blockSize, // read by what is older than transformers 4
    n_embd: nEmbd,
    n_layer: nLayer,
    n_head: nHead,
    n_inner: nInner === 4 * nEmbd ? null : nInner,
    activation_function: config.activation,
    resid_pdrop: dropout,
    embd_pdrop: dropout,
    attn_pdrop: dropout,
    layer_norm_epsilon: config.layerNormEpsilon,
    initializer_range: 0.02,
    tie_word_embeddings: config.tieWordEmbeddings,
    ...ids,
    ...(head && headFields(head)),
  };
}

const IDS = ["bos_token_id", "eos_token_id", "pad_token_id"];

/** What a config.json or generation_config.json says of such tokens; what is missing there stays missing: its default holds. */
export const tokenIds = (json: Json): Json =>
  Object.fromEntries(Object.entries(json).filter(([name]) => IDS.includes(name)));
