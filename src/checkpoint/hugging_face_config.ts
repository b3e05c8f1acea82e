/**
 * Reads and writes the config.json of a GPT-2 in Hugging Face's transformers
 * (https://huggingface.co/docs/transformers/model_doc/gpt2#transformers.GPT2Config). Missing fields have GPT2Config's
 * defaults. Values that our model cannot compute are rejected.
 */
import { CheckpointError, ConfigError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import { headFields, type HuggingFaceHead } from "./hugging_face_heads.ts";

type Json = Readonly<Record<string, unknown>>;

/** transformers' names for each activation of the model. The first name is used when a model is saved. */
const ACTIVATIONS: Readonly<Record<NonNullable<GPTConfig["activation"]>, readonly string[]>> = {
  gelu: ["gelu", "gelu_python"],
  gelu_new: ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"],
  relu: ["relu"],
};
/** Fields that change the computation, with the values that our model supports. */
const ONLY: Readonly<Record<string, readonly unknown[]>> = {
  model_type: ["gpt2"],
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  reorder_and_upcast_attn: [false, true], // only makes 16-bit arithmetic more precise; the equation does not change
  add_cross_attention: [false],
  is_encoder_decoder: [false],
  quantization_config: [null],
};
/**
 * Architectures that are loaded as a language model. GPT2DoubleHeadsModel's second head is loaded only on request.
 */
const ARCHITECTURES = ["GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"];
const CLASSIFIER = "GPT2ForSequenceClassification";
const DROPOUTS = ["resid_pdrop", "embd_pdrop", "attn_pdrop"];
/** Alternative names of fields in transformers. */
const ALIASES: Readonly<Record<string, string>> = {
  n_positions: "max_position_embeddings",
  n_embd: "hidden_size",
  n_head: "num_attention_heads",
  n_layer: "num_hidden_layers",
};

/**
 * Converts a config.json to the model's config.
 *
 * @param path path of the file, for messages
 * @param options.headed whether the caller can load a head, so that a classifier is accepted
 * @param options.onNote called with a line if our model differs from the config
 * @throws {CheckpointError} when the architecture is not GPT-2, or a field has a value that our model does not support
 */
export function fromHuggingFaceConfig(
  json: Json,
  path: string,
  { headed = false, onNote = () => {} }: { headed?: boolean; onNote?: (line: string) => void } = {},
): GPTConfig {
  const refuse = (field: string, expected: string) =>
    new CheckpointError(`${path}: ${field} is ${JSON.stringify(json[field])}; supported: ${expected}`);
  for (const [field, values] of Object.entries(ONLY)) {
    if (Object.hasOwn(json, field) && !values.includes(json[field])) {
      throw refuse(field, values.map((value) => JSON.stringify(value)).join(" or "));
    }
  }
  const { architectures } = json, known = headed ? [...ARCHITECTURES, CLASSIFIER] : ARCHITECTURES;
  if (architectures !== undefined && architectures !== null) {
    if (`${architectures}` === CLASSIFIER && !headed) {
      throw new CheckpointError(
        `${path} is a classifier, which cannot generate text; use pipeline("text-classification", …) or loadHead`,
      );
    }
    if (!(Array.isArray(architectures) && architectures.every((name) => known.includes(name)))) {
      throw refuse("architectures", known.join(" or "));
    }
  } else if (json.model_type !== "gpt2") {
    throw new CheckpointError(`${path} has neither model_type nor architectures, so it may not be a GPT-2`);
  }

  const size = (field: string, fallback: number): number => {
    const alias = ALIASES[field], name = alias in json ? alias : field, value = name in json ? json[name] : fallback;
    if (name !== field && field in json && json[field] !== value) throw refuse(alias, `the value of ${field}`);
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
    onNote(
      `${path}: ${
        DROPOUTS.map((field) => `${field} is ${json[field] ?? 0.1}`).join(", ")
      }; they differ, so all are set to 0`,
    );
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
 * The contents of config.json for a model: every field whose value may differ from GPT2Config's default.
 *
 * @param options.ids ids of the tokens that begin, end and pad a text, as returned by {@linkcode tokenIds}
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
    n_ctx: blockSize, // for versions before transformers 4
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

/**
 * The ids of a config.json or generation_config.json for the tokens that begin, end and pad a text. Missing ids stay
 * missing.
 */
export const tokenIds = (json: Json): Json =>
  Object.fromEntries(Object.entries(json).filter(([name]) => IDS.includes(name)));
