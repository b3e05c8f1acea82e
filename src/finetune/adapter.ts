/** A LoRA adapter to and from the folders of Hugging Face's PEFT: see checkpoint/adapter.ts for the files. */
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

/** What PEFT calls the parts of a head: `score` of a classifier. */
const headNames = (head?: Module): string[] => [...head?.namedParameters() ?? []].map(([name]) => name.split(".")[0]);

/** What a trainer saves of an adapter. */
export function trainedAdapter(lora: Lora, options: Pick<SaveAdapterOptions, "base" | "taskType">): TrainedAdapter {
  return { config: adapterConfig(lora, options), namedParameters: () => lora.namedParameters() };
}

/** How {@linkcode saveAdapter} writes. */
export interface SaveAdapterOptions {
  /** The base model's name, which PEFT loads by itself. */ readonly base?: string;
  /** Such as CAUSAL_LM, the default, or SEQ_CLS. */ readonly taskType?: string;
  /** How files are created. */ readonly open?: OpenFile;
}

/** adapter_config.json's contents. */
export function adapterConfig(
  { options, head }: Lora,
  { base, taskType }: Pick<SaveAdapterOptions, "base" | "taskType"> = {},
): Record<string, unknown> {
  const modulesToSave = [...new Set([...options.modulesToSave, ...headNames(head)])];
  return toPeftConfig({ ...options, modulesToSave, base, taskType });
}

/**
 * Writes adapter_config.json and adapter_model.safetensors into a new folder, which PEFT opens with
 * `PeftModel.from_pretrained(model, path)`. It has another name until all of it is on the disk.
 *
 * @param path of the folder, which must not be there, or be empty
 * @throws {CheckpointError} when the folder is there, another process writes it, or the disk refuses; nothing is left then
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

/** How {@linkcode loadAdapter} loads. */
export interface LoadAdapterOptions {
  /** Whether the adapter is trained further, and the rest frozen; default false: nothing of the adapter is trained. */
  readonly trainable?: boolean;
  /** A module beside the model whose tensors are in the file too, such as a classifier. */
  readonly head?: Module;
  /** Takes a line, without a newline, on what is left out. */ readonly onNote?: (line: string) => void;
}

/**
 * Puts an adapter out of a PEFT folder on a model, round the adapters that it has already. The names of the tensors say which layers
 * it has; the base is not copied.
 *
 * @param path of a folder with adapter_config.json and adapter_model.safetensors
 * @returns the adapter, enabled
 * @throws {CheckpointError} when a file is missing or damaged, of another method than LoRA, or of another base; the model is as it was
 * @throws {DeviceError} when it does not fit
 * @example
 * ```ts ignore
 * const { model } = await loadPretrained("gpt2", { device });
 * const lora = await loadAdapter("my-adapter", model);
 * lora.enabled = false; // GPT-2 again
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
      `${path} was trained beside a classifier's head, ${beside}, and cannot be read without one`,
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

/** What an adapter adds to a layer: scaling · B · A. */
export interface AdapterPair {
  /** (rank, in) */ readonly A: Float32Array;
  /** (out, rank) */ readonly B: Float32Array;
  readonly rank: number;
  readonly scaling: number;
}

/**
 * The pairs of an adapter by the paths of their layers; nothing is put on the model.
 *
 * @returns undefined where it is more than pairs for the layers of blocks: rows of tokens, whole modules, or a pair for the head
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

/** PEFT lists modules that a model may not have, such as `classifier` beside `score`: what has no tensor in the file is left out. */
function shapeOf(
  { base: _, taskType: __, ...shape }: AdapterConfig,
  names: readonly string[],
  head?: Module,
): AdapterShape {
  const own = headNames(head), stored = (module: string) => names.some((name) => `.${name}.`.includes(`.${module}.`));
  return { ...shape, modulesToSave: shape.modulesToSave.filter((name) => stored(name) && !own.includes(name)) };
}

/**
 * The layers that a file has adapters of, with their ranks, and what stands before the names of the body's layers: those of
 * GPT2Model, which a classifier of features has, lack `transformer.`.
 *
 * @throws {CheckpointError} when a layer is missing in the model or of other sizes
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
      throw new CheckpointError(`${path} has ${shown(name)}, and only lora_A and lora_B of linear layers can be read`);
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
  if (missing.size > 0) throw new CheckpointError(`${path} is of another base: the model has no ${some([...missing])}`);
  if (wrong.length > 0) throw new CheckpointError(`${path} is of another base: ${some(wrong)}`);
  const { modulesToSave } = config;
  if (ranks.size > 0 || modulesToSave.length > 0 || config.trainableTokens.length > 0) {
    return { ranks, prefix, names: [...shapes.keys()] };
  }
  throw new CheckpointError(`${path} holds no adapter of this model's layers`);
}
