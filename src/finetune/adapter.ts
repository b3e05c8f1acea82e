/**
 * Saves and loads LoRA adapters in the folder format of Hugging Face's PEFT. The files are described in
 * checkpoint/adapter.ts.
 */
import {
  ADAPTER_PREFIX,
  ADAPTER_WEIGHTS,
  type AdapterConfig,
  type AdapterShape,
  readAdapterConfig,
  toPeftConfig,
  type TrainedAdapter,
  writeAdapter,
} from "../checkpoint/adapter.ts";
import { loadTensors, sources } from "../checkpoint/tensors.ts";
import { CheckpointError, ConfigError, DeviceError } from "../errors.ts";
import type { OpenFile } from "../files/files.ts";
import { createFolder } from "../files/locks.ts";
import { reason } from "../files/reason.ts";
import { SafetensorsFile } from "../files/safetensors.ts";
import { shown, some } from "../files/shown.ts";
import type { GPT } from "../gpt.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { Linear } from "../nn/linear.ts";
import type { Module } from "../nn/module.ts";
import { attach, type Lora } from "./lora.ts";
import { byPattern, linearPlaces } from "./targets.ts";

/** PEFT's names of a head's layers, such as `score` for a classifier. */
const headNames = (head?: Module): string[] => [...head?.namedParameters() ?? []].map(([name]) => name.split(".")[0]);

/** An adapter in the form that a trainer saves in its checkpoints. */
export function trainedAdapter(lora: Lora, options: Pick<SaveAdapterOptions, "base" | "taskType">): TrainedAdapter {
  return { config: adapterConfig(lora, options), namedParameters: () => lora.namedParameters() };
}

/** Options of {@linkcode saveAdapter}. */
export interface SaveAdapterOptions {
  /** The name of the base model, from which PEFT loads it. */ readonly base?: string;
  /** PEFT's task type, such as SEQ_CLS. Default: CAUSAL_LM. */ readonly taskType?: string;
  /** Creates files. */ readonly open?: OpenFile;
}

/** The contents of adapter_config.json for an adapter. */
function adapterConfig(
  { options, head }: Lora,
  { base, taskType }: Pick<SaveAdapterOptions, "base" | "taskType"> = {},
): Record<string, unknown> {
  const modulesToSave = [...new Set([...options.modulesToSave, ...headNames(head)])];
  return toPeftConfig({ ...options, modulesToSave, base, taskType });
}

/**
 * Writes adapter_config.json and adapter_model.safetensors into a new folder. PEFT opens it with
 * `PeftModel.from_pretrained(model, path)`. The folder has a temporary name until it is complete on disk.
 *
 * @param path the folder, which must be missing or empty
 * @throws {CheckpointError} when the folder exists and is not empty, another process is writing it, or writing fails;
 *   nothing of the adapter is left then
 * @example
 * ```ts ignore
 * await saveAdapter("my-adapter", lora, { base: "gpt2" });
 * ```
 */
export async function saveAdapter(path: string, lora: Lora, options: SaveAdapterOptions = {}): Promise<void> {
  const saved = { config: adapterConfig(lora, options), tensors: sources(lora.namedParameters()) };
  try {
    await createFolder(path, (partial) => writeAdapter(partial, saved, options.open));
  } catch (error) {
    throw error instanceof CheckpointError || error instanceof DeviceError
      ? error
      : new CheckpointError(`Cannot write ${path}: ${reason(error)}`);
  }
}

/** Options of {@linkcode loadAdapter}. */
export interface LoadAdapterOptions {
  /** Whether to make the adapter trainable and freeze the model. Default: false, the adapter is frozen. */
  readonly trainable?: boolean;
  /** A module whose tensors the adapter's file also contains, such as a classification head. */
  readonly head?: Module;
  /** Called with a line, without a newline, about parts of the file that are ignored. */ readonly onNote?: (
    line: string,
  ) => void;
}

/**
 * Loads an adapter from a PEFT folder and adds it to a model, which may have other adapters already. The names of the
 * adapter's tensors determine the layers that it changes. The base model's weights are not copied.
 *
 * @param path a folder with adapter_config.json and adapter_model.safetensors
 * @returns the adapter, enabled
 * @throws {CheckpointError} when a file is missing or damaged, or the adapter is not a LoRA adapter for this model; in
 *   that case the model is unchanged
 * @throws {DeviceError} when the adapter does not fit into memory
 * @example
 * ```ts ignore
 * const { model } = await loadPretrained("gpt2", { device });
 * const lora = await loadAdapter("my-adapter", model);
 * lora.enabled = false; // the model's outputs are GPT-2's again
 * ```
 */
export async function loadAdapter(path: string, model: GPT, options: LoadAdapterOptions = {}): Promise<Lora> {
  const { head, onNote, trainable = false } = options, weights = `${path}/${ADAPTER_WEIGHTS}`;
  const config = await readAdapterConfig(path, { onNote });
  const { ranks, prefix, names } = await layersIn(weights, model, config);
  const places = [...linearPlaces(model)].filter((place) => ranks.has(place.path));
  const shape = shapeOf(config, names, head);
  const beside = shape.modulesToSave.find((name) => ["score", "classifier"].includes(name)); // PEFT's names of heads
  if (beside) {
    throw new CheckpointError(
      `${path} was trained with a classifier's head, ${beside}, and cannot be loaded without such a head`,
    );
  }
  let lora: Lora;
  try {
    lora = attach(model, { shape, head, places, rankOf: (path) => ranks.get(path)! });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new CheckpointError(`${path} does not fit the model: ${error.message}`);
  }
  try {
    const tensors = [...lora.namedParameters()].map(([name, tensor]) =>
      [name.replace(`${ADAPTER_PREFIX}transformer.`, prefix), tensor] as const
    );
    await loadTensors(weights, tensors, { onNote });
  } catch (error) {
    lora.remove();
    throw error;
  }
  if (trainable) lora.trainAlone();
  return lora;
}

/** The matrices of an adapter for one layer, to which it adds scaling · B · A. */
export interface AdapterPair {
  /** (rank, in) */ readonly A: Float32Array;
  /** (out, rank) */ readonly B: Float32Array;
  readonly rank: number;
  readonly scaling: number;
}

/**
 * Reads the matrices of an adapter, by the paths of their layers. The model is not changed.
 *
 * @returns undefined if the adapter changes more than the layers of blocks: if it has embeddings of tokens, whole
 *   modules, or matrices for the head
 * @throws {CheckpointError} as {@linkcode loadAdapter}
 */
export async function readPairs(
  path: string,
  model: GPT,
  { onNote }: Pick<LoadAdapterOptions, "onNote"> = {},
): Promise<Map<string, AdapterPair> | undefined> {
  const config = await readAdapterConfig(path, { onNote }), weights = `${path}/${ADAPTER_WEIGHTS}`;
  if (config.trainableTokens.length > 0 || config.modulesToSave.length > 0) return;
  const { ranks, prefix } = await layersIn(weights, model, config), { alphaPattern, alpha, rslora } = config;
  if (ranks.has("lm_head")) return;
  const { device } = model, pairs = new Map<string, AdapterPair>(), tensors: [name: string, tensor: Tensor][] = [];
  try {
    for (const { path: of, holder, key } of linearPlaces(model)) {
      const rank = ranks.get(of), { weight: { shape: [out, inner] } } = holder[key] as Linear;
      if (rank === undefined) continue;
      const stem = `${ADAPTER_PREFIX}${of}`.replace(`${ADAPTER_PREFIX}transformer.`, prefix);
      tensors.push([`${stem}.lora_A.weight`, device.empty([rank, inner])]);
      tensors.push([`${stem}.lora_B.weight`, device.empty([out, rank])]);
      const own = byPattern(alphaPattern, of, { option: "alphaPattern", otherwise: alpha });
      const scaling = own / (rslora ? Math.sqrt(rank) : rank);
      pairs.set(of, { A: new Float32Array(rank * inner), B: new Float32Array(out * rank), rank, scaling });
    }
    await loadTensors(weights, tensors, { onNote });
    for (const [i, { A, B }] of [...pairs.values()].entries()) {
      A.set(await tensors[2 * i][1].data());
      B.set(await tensors[2 * i + 1][1].data());
    }
  } finally {
    for (const [, tensor] of tensors) tensor.dispose();
  }
  return pairs;
}

/**
 * The shape of the adapter that a config describes. PEFT's `modules_to_save` may list modules that the model lacks,
 * such as `classifier` besides `score`: modules without tensors in the file are left out.
 */
function shapeOf(
  { base: _, taskType: __, ...shape }: AdapterConfig,
  names: readonly string[],
  head?: Module,
): AdapterShape {
  const own = headNames(head), stored = (module: string) => names.some((name) => `.${name}.`.includes(`.${module}.`));
  return { ...shape, modulesToSave: shape.modulesToSave.filter((name) => stored(name) && !own.includes(name)) };
}

/**
 * Finds the layers for which a file has matrices, with their ranks, and the prefix of the layers' names in the file.
 * The prefix lacks `transformer.` if the adapter was trained on a GPT2Model without a language modelling head.
 *
 * @throws {CheckpointError} when a layer is missing in the model or has a different size
 */
async function layersIn(
  path: string,
  model: GPT,
  config: AdapterConfig,
): Promise<{ ranks: Map<string, number>; prefix: string; names: string[] }> {
  using file = await SafetensorsFile.open(path);
  const shapes = new Map([...file.tensors].map(([name, { shape }]) => [name, shape]));
  const bare = [...shapes.keys()].some((name) => /^base_model\.model\.(h\.\d|wte|wpe|ln_f)/.test(name));
  const prefix = ADAPTER_PREFIX + (bare ? "" : "transformer.");
  const layers = new Map(
    [...linearPlaces(model)].map((
      { path, holder, key },
    ) => [path, holder[key] as { weight: { shape: readonly number[] } }]),
  );
  const ranks = new Map<string, number>(), wrong: string[] = [], missing = new Set<string>();
  for (const [name, shape] of shapes) {
    const [, stem, kind] = name.match(/^(.*)\.(lora_[A-Za-z_]+|token_adapter\.\w+)(?:\.weight)?$/) ?? [];
    if (kind === undefined || kind.startsWith("token_adapter")) continue;
    if (kind !== "lora_A" && kind !== "lora_B") {
      throw new CheckpointError(`${path} has ${shown(name)}, but only lora_A and lora_B of linear layers can be read`);
    }
    const ours = stem.startsWith(prefix)
      ? `transformer.${stem.slice(prefix.length)}`
      : stem.slice(ADAPTER_PREFIX.length);
    const [out, inner] = layers.get(ours)?.weight.shape ?? [];
    if (out === undefined) missing.add(shown(ours));
    else {
      const at = kind === "lora_A" ? 0 : 1, size = kind === "lora_A" ? inner : out;
      if (shape.length !== 2 || shape[1 - at] !== size) {
        wrong.push(
          `${shown(ours)} is [${out},${inner}], and ${kind} [${shape}], expected [${at ? `${size},r` : `r,${size}`}]`,
        );
      } else ranks.set(ours, shape[at]);
    }
  }
  if (missing.size > 0) {
    throw new CheckpointError(`${path} is for another base: the model has no ${some([...missing])}`);
  }
  if (wrong.length > 0) throw new CheckpointError(`${path} is for another base: ${some(wrong)}`);
  const { modulesToSave } = config;
  if (ranks.size > 0 || modulesToSave.length > 0 || config.trainableTokens.length > 0) {
    return { ranks, prefix, names: [...shapes.keys()] };
  }
  throw new CheckpointError(`${path} has no adapter for this model's layers`);
}
