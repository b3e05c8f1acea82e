/**
 * The two files of a LoRA adapter in the format of Hugging Face's PEFT: adapter_config.json and
 * adapter_model.safetensors (https://huggingface.co/docs/peft/developer_guides/checkpoint). A tensor's name is
 * `base_model.model.` followed by its module's path in GPT2LMHeadModel. lora_A (r, in) and lora_B (out, r) are stored
 * like the weights of PyTorch's Linear.
 *
 * Fields that would change the computation, such as DoRA's, are rejected by name. Fields that only describe the
 * training are ignored.
 */
import { CheckpointError } from "../errors.ts";
import { exists, isObject, type OpenFile, readJson, writeJson } from "../files/files.ts";
import { type NamedSource, writeSafetensors } from "../files/safetensors.ts";
import { shown, some } from "../files/shown.ts";
import type { NamedTensors } from "./tensors.ts";

/** Names of an adapter's two files. */
export const ADAPTER_CONFIG = "adapter_config.json", ADAPTER_WEIGHTS = "adapter_model.safetensors";
/** Prefix that PEFT puts before the name of every tensor. */
export const ADAPTER_PREFIX = "base_model.model.";

/** The structure of a LoRA adapter, by our names for the fields of adapter_config.json. */
export interface AdapterShape {
  /** PEFT's `r`: the inner dimension of each pair of matrices. */ readonly rank: number;
  /** PEFT's `lora_alpha`: the output of each pair is scaled by alpha / rank. */ readonly alpha: number;
  /** Whether to scale by alpha / √rank instead (Kalajdzievski 2023, arXiv:2312.03732). */ readonly rslora: boolean;
  /** Dropout probability of the adapter's input in training. */ readonly dropout: number;
  /** Names of the layers to adapt, a pattern for their whole paths, or `all-linear`. */ readonly targets:
    | string
    | readonly string[];
  /** Numbers of the blocks to adapt. Default: all blocks. */ readonly layers?: readonly number[];
  /** Ranks that differ from `rank`, by patterns for the ends of paths. */ readonly rankPattern: Readonly<
    Record<string, number>
  >;
  /** Alphas that differ from `alpha`, by patterns for the ends of paths. */ readonly alphaPattern: Readonly<
    Record<string, number>
  >;
  /** Modules that are trained and saved as a whole. */ readonly modulesToSave: readonly string[];
  /** Ids of tokens whose rows of the embeddings, and of a tied head, are trained. */ readonly trainableTokens:
    readonly number[];
}

/** PEFT's defaults. */
export const ADAPTER_DEFAULTS: AdapterShape = {
  rank: 8,
  alpha: 8,
  rslora: false,
  dropout: 0,
  targets: ["c_attn"],
  rankPattern: {},
  alphaPattern: {},
  modulesToSave: [],
  trainableTokens: [],
};

/** The contents of adapter_config.json. */
export interface AdapterConfig extends AdapterShape {
  /** Name of the base model. */ readonly base?: string;
  /** PEFT's task type, such as CAUSAL_LM or SEQ_CLS. */ readonly taskType?: string;
}

/** The fields of PEFT 0.21 and their defaults, without the fields that {@linkcode toPeftConfig} fills in. */
const DEFAULTS: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  arrow_config: null,
  auto_mapping: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: true,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  loftq_config: {},
  lora_bias: false,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.2",
  qalora_group_size: 16,
  revision: null,
  target_parameters: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  velora_config: null,
};

/** Fields that change the computation, and the values that are supported. Any other value is rejected. */
const PLAIN: Readonly<Record<string, readonly unknown[]>> = {
  use_dora: [false],
  use_qalora: [false],
  use_bdlora: [null, false],
  lora_bias: [false],
  bias: ["none"],
  init_lora_weights: [true, false, "gaussian", "orthogonal", "eva"], // all other values change the base's weights
  alora_invocation_tokens: [null],
  arrow_config: [null],
  kasa_config: [null],
  layer_replication: [null],
  megatron_config: [null],
  monteclora_config: [null],
  target_parameters: [null],
  velora_config: [null],
};

/** The contents of adapter_config.json, with fields in PEFT's order. */
export function toPeftConfig(config: AdapterConfig): Record<string, unknown> {
  const { rank, alpha, rslora, dropout, targets, layers, rankPattern, alphaPattern, modulesToSave, trainableTokens } =
    config;
  const own = {
    alpha_pattern: alphaPattern,
    base_model_name_or_path: config.base ?? null,
    layers_to_transform: layers ?? null,
    lora_alpha: alpha,
    lora_dropout: dropout,
    modules_to_save: modulesToSave.length > 0 ? modulesToSave : null,
    r: rank,
    rank_pattern: rankPattern,
    target_modules: targets,
    task_type: config.taskType ?? "CAUSAL_LM",
    trainable_token_indices: trainableTokens.length > 0 ? trainableTokens : null,
    use_rslora: rslora,
  };
  return Object.fromEntries(Object.entries({ ...DEFAULTS, ...own }).sort(([a], [b]) => a < b ? -1 : 1));
}

/**
 * Reads an adapter_config.json, including files of older PEFT versions.
 *
 * @param options.onNote called with a line that names unknown fields, which are ignored
 * @throws {CheckpointError} when the adapter uses a method other than LoRA, or a field has an invalid value
 */
export async function readAdapterConfig(
  folder: string,
  { onNote = () => {} }: { onNote?: (line: string) => void } = {},
): Promise<AdapterConfig> {
  const path = `${folder}/${ADAPTER_CONFIG}`;
  if (!await exists(path)) {
    const run = await exists(`${folder}/run.json`) ? `; it is a run, with adapters in ${folder}/checkpoint-…` : "";
    throw new CheckpointError(`${folder} is not an adapter: it has no ${ADAPTER_CONFIG}, which PEFT writes${run}`);
  }
  const json = await readJson(path);
  const refuse = (name: string, why: string) =>
    new CheckpointError(`${path} has ${name} ${shown(JSON.stringify(json[name]))}, ${why}`);
  if (json.peft_type !== "LORA") throw refuse("peft_type", "but only LORA is supported");
  for (const [name, plain] of Object.entries(PLAIN)) {
    if (json[name] === undefined || plain.includes(json[name])) continue;
    const other = name === "use_dora" ? "DoRA" : name;
    throw refuse(name, `but adapters with ${other} are not supported, only plain LoRA`);
  }
  const take = <T>(name: string, otherwise: T, holds: (value: unknown) => boolean, what: string): T => {
    const value = json[name];
    if (value === undefined || value === null) return otherwise;
    if (!holds(value)) throw refuse(name, `expected ${what}`);
    return value as T;
  };
  const isWhole = (least: number) => (value: unknown) => Number.isSafeInteger(value) && (value as number) >= least;
  const isAlpha = (value: unknown) => Number.isFinite(value);
  const isList = (holds: (value: unknown) => boolean) => (value: unknown) => Array.isArray(value) && value.every(holds);
  const isRecord = (holds: (value: unknown) => boolean) => (value: unknown) =>
    isObject(value) && Object.values(value).every(holds);
  const isName = (value: unknown) => typeof value === "string";
  const isShare = (value: unknown) => typeof value === "number" && value >= 0 && value < 1;
  const layers = take<number | number[] | undefined>(
    "layers_to_transform",
    undefined,
    (value) => isWhole(0)(value) || isList(isWhole(0))(value),
    "numbers of layers",
  );
  const tokens = take<number[] | Record<string, number[]>>(
    "trainable_token_indices",
    [],
    (value) => isList(isWhole(0))(value) || isRecord(isList(isWhole(0)))(value),
    "ids of tokens",
  );
  const known = Object.keys(toPeftConfig(ADAPTER_DEFAULTS));
  const others = Object.keys(json).filter((name) => !known.includes(name) && name !== "runtime_config");
  if (others.length > 0) onNote(`${path}: unknown fields are ignored: ${some(others.map(shown))}`);
  return {
    rank: take("r", ADAPTER_DEFAULTS.rank, isWhole(1), "a whole number above 0"),
    alpha: take("lora_alpha", ADAPTER_DEFAULTS.alpha, isAlpha, "a number"),
    rslora: take("use_rslora", ADAPTER_DEFAULTS.rslora, (value) => typeof value === "boolean", "true or false"),
    dropout: take("lora_dropout", ADAPTER_DEFAULTS.dropout, isShare, "a probability from 0 to below 1"),
    targets: take<string | readonly string[]>(
      "target_modules",
      ADAPTER_DEFAULTS.targets,
      (value) => isName(value) || isList(isName)(value),
      "names of modules",
    ),
    layers: typeof layers === "number" ? [layers] : layers,
    rankPattern: take("rank_pattern", ADAPTER_DEFAULTS.rankPattern, isRecord(isWhole(1)), "ranks by patterns"),
    alphaPattern: take("alpha_pattern", ADAPTER_DEFAULTS.alphaPattern, isRecord(isAlpha), "numbers by patterns"),
    modulesToSave: take("modules_to_save", ADAPTER_DEFAULTS.modulesToSave, isList(isName), "names of modules"),
    trainableTokens: Array.isArray(tokens) ? tokens : Object.values(tokens)[0] ?? [],
    base: take<string | undefined>("base_model_name_or_path", undefined, isName, "a name"),
    taskType: take<string | undefined>("task_type", undefined, isName, "a name"),
  };
}

/** An adapter to write to the disk. */
export interface SavedAdapter {
  /** Contents of adapter_config.json. */ readonly config: Readonly<Record<string, unknown>>;
  /** Tensors by PEFT's names. */ readonly tensors: Iterable<NamedSource>;
}

/** An adapter that a trainer saves instead of the model's weights. */
export interface TrainedAdapter {
  /** Contents of adapter_config.json. */ readonly config: Readonly<Record<string, unknown>>;
  /** The adapter's parameters by PEFT's names. */ namedParameters(): NamedTensors;
}

/** Writes both files into an existing folder. @throws the errors of the file system */
export async function writeAdapter(folder: string, { config, tensors }: SavedAdapter, open?: OpenFile): Promise<void> {
  await writeJson(`${folder}/${ADAPTER_CONFIG}`, config, open);
  await writeSafetensors(`${folder}/${ADAPTER_WEIGHTS}`, tensors, { metadata: { format: "pt" }, open });
}
