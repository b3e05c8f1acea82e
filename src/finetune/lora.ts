/**
 * LoRA (Hu et al. 2021, arXiv:2106.09685), as in PEFT: a layer's output becomes base(x) + scaling · B · A · dropout(x).
 * Only A and B are trained. A is initialised uniformly in ±1/√in and B with zeros, so a new adapter changes nothing.
 *
 * An adapter replaces layers in the model's fields by wrappers that hold the base layers. The base may be stored in
 * f32, bf16 or q8_0 and is never copied. A model can have several adapters, each around the one before. Their changes
 * are added up; a disabled adapter adds nothing.
 */
import { ADAPTER_DEFAULTS, ADAPTER_PREFIX, type AdapterShape } from "../checkpoint/adapter.ts";
import { Tensor, untrainable } from "../engine/tensor.ts";
import { ConfigError } from "../errors.ts";
import type { GPT, GPTConfig } from "../gpt.ts";
import type { Embedding } from "../nn/embedding.ts";
import type { Linear } from "../nn/linear.ts";
import { Module } from "../nn/module.ts";
import { RandomGenerator } from "../random/mod.ts";
import { copyOf, LoraLinear, tensorPlaces, TunedRows, TunedTokens, untie, type Wrapper } from "./lora_layers.ts";
import { byPattern, endsIn, linearPlaces, namedModules, type Place, targetsOf } from "./targets.ts";

/** Options of {@linkcode applyLora}. Defaults are PEFT's. */
export interface LoraOptions extends Partial<Omit<AdapterShape, "targets">> {
  /** The layers: names or ends of paths, such as `["c_attn"]`; a pattern that matches whole paths; or `all-linear`. */
  readonly targets?: string | RegExp | readonly string[];
  /** A module that is trained and saved with the adapter, such as a classifier's head, whose layer is `score`. */
  readonly head?: Module;
  /** Draws A. Default: a new generator, seeded with `seed`. */
  readonly generator?: RandomGenerator;
  /** Seed of the default generator. Default: 1337. */
  readonly seed?: number;
}

/** The adapters of each model, innermost first. */
const adapters = new WeakMap<GPT, Lora[]>();

/** The adapters on a model, innermost first, including adapters that `loadPretrained` loaded with it. */
export const adaptersOf = (model: GPT): readonly Lora[] => [...adapters.get(model) ?? []];

/** A parameter of a fully trained module: the base's tensor, and the trained copy that replaces it. */
interface Swap {
  readonly name: string;
  readonly holder: Record<string, unknown>;
  readonly key: string;
  readonly original: Tensor;
  readonly own: Tensor;
}

/**
 * A LoRA adapter on a model. Disposing of the adapter removes it from the model; disposing of the model frees the
 * adapter too.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { applyLora } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * using lora = applyLora(model, { rank: 2, targets: ["c_attn"] });
 * assertEquals([...model.namedParameters({ trainable: true })].map(([name, { shape }]) => [name, shape]), [
 *   ["transformer.h.0.attn.c_attn.lora_A.weight", [2, 16]],
 *   ["transformer.h.0.attn.c_attn.lora_B.weight", [48, 2]],
 * ]);
 * lora.enabled = false; // the model's outputs are the base model's again
 * ```
 */
export class Lora implements Disposable {
  #enabled = true;
  #wrappers: { readonly path: string; readonly wrapper: Wrapper }[] = [];
  #swaps: Swap[] = [];

  /** @internal */
  constructor(
    readonly model: GPT,
    /** The options that the adapter was made with. */ readonly options: AdapterShape,
    /** A module that is trained and saved with the adapter. */ readonly head?: Module,
  ) {}

  /** @internal Replaces the layer in a place by `wrapper`. */
  wrap({ path, holder, key }: Place, wrapper: Wrapper): void {
    holder[key] = wrapper;
    this.#wrappers.push({ path, wrapper });
  }
  /** @internal Replaces every parameter of a module by a copy that can be trained. */
  swap(path: string, module: Module): void {
    for (const [name, holder, key, original] of tensorPlaces(module, path)) {
      using scope = original.device.scope();
      const { storage, shape } = copyOf(original), own = scope.keep(new Tensor(storage, shape));
      holder[key] = own;
      this.#swaps.push({ name, holder, key, original, own });
    }
  }

  /** Whether the model uses the adapter. If all adapters are disabled, the model's outputs are the base model's. */
  get enabled(): boolean {
    return this.#enabled;
  }
  set enabled(enabled: boolean) {
    if (enabled === this.#enabled) return;
    this.#enabled = enabled;
    for (const { wrapper } of this.#wrappers) wrapper.enabled = enabled;
    for (const { holder, key, original, own } of this.#swaps) holder[key] = enabled ? own : original;
    this.model.changed();
  }

  /** The adapter's parameters, under their names in PEFT's files. */
  *namedParameters(): Generator<[name: string, parameter: Tensor]> {
    for (const { path, wrapper } of this.#wrappers) {
      for (const [name, tensor] of wrapper.own()) yield [`${ADAPTER_PREFIX}${path}.${name}`, tensor];
    }
    for (const { name, own } of this.#swaps) yield [ADAPTER_PREFIX + name, own];
    for (const [name, tensor] of this.head?.namedParameters() ?? []) yield [ADAPTER_PREFIX + name, tensor];
  }

  /** Freezes the model and makes only the adapter's parameters trainable. */
  trainAlone(): void {
    this.model.freeze();
    for (const [, parameter] of this.namedParameters()) parameter.requiresGrad = true;
  }

  /**
   * Adds the adapter to the model's matrices, W += scaling · B · A, and removes the adapter. This cannot be undone;
   * call {@linkcode remove} to get the base back instead. Afterwards all parameters are frozen.
   *
   * @throws {ConfigError} when the adapter is disabled, or a matrix is stored in bf16, in q8_0 or for inference only;
   *   in that case nothing changes
   */
  merge(): void {
    if (!this.#enabled) {
      throw new ConfigError("merge: the adapter is disabled, so merging it would change the model; enable it first");
    }
    for (const { path, wrapper } of this.#wrappers) {
      const stored = untrainable((wrapper as unknown as Linear).weight.storage);
      if (!stored) continue;
      throw new ConfigError(
        `merge: ${path} is stored in ${stored}, which would round the adapter's changes; load the base with f32 weights` +
          (stored === "panels" ? ", and not for inference" : ""),
      );
    }
    const { model } = this, { wte } = model.transformer;
    for (const { path, wrapper } of this.#wrappers) {
      if (path === "lm_head" && wrapper instanceof LoraLinear && wte.weight === model.lm_head.weight) untie(model);
      using _ = model.device.scope();
      wrapper.merge();
    }
    const swaps = this.#swaps;
    this.#swaps = [];
    this.#unwrap();
    const left = new Set(model.parameters());
    for (const { original } of swaps) if (!left.has(original)) original.dispose();
    const tieWordEmbeddings = wte.weight === model.lm_head.weight;
    (model as { config: Required<GPTConfig> }).config = { ...model.config, tieWordEmbeddings };
    model.freeze();
  }

  /** Removes the adapter from the model and frees it. The caller still owns the head. */
  remove(): void {
    this.enabled = false;
    for (const { own } of this.#swaps) free(own);
    this.#swaps = [];
    this.#unwrap();
  }
  /** Calls {@linkcode remove}. */ [Symbol.dispose](): void {
    this.remove();
  }

  #unwrap(): void {
    for (const { wrapper } of this.#wrappers) {
      for (const place of wrapperPlaces(this.model)) {
        let { holder, key } = place; // the field holds this wrapper, or a wrapper of a later adapter around it
        while (holder[key] !== wrapper && (holder[key] as Partial<Wrapper>).base_layer) {
          holder = holder[key] as Record<string, unknown>;
          key = "base_layer";
        }
        if (holder[key] === wrapper) holder[key] = wrapper.base_layer;
      }
      for (const [name, child] of Object.entries(wrapper)) {
        if (name !== "base_layer" && child instanceof Module) child.dispose();
      }
    }
    this.#wrappers = [];
    adapters.set(this.model, adaptersOf(this.model).filter((lora) => lora !== this));
    this.model.changed();
  }
}

function free(tensor: Tensor): void {
  tensor.grad?.dispose();
  tensor.dispose();
}

/** The model's fields that may hold wrappers: the fields of its linear layers and of the token embeddings. */
function* wrapperPlaces(model: GPT): Generator<Place> {
  yield* linearPlaces(model);
  const { transformer } = model;
  yield { path: "transformer.wte", holder: transformer as unknown as Record<string, unknown>, key: "wte" };
}

/**
 * Adds a LoRA adapter to a model, freezes the model and makes the adapter trainable. `namedParameters({ trainable: true
 * })` then yields only the adapter's parameters. Call it before you create an optimizer.
 *
 * @param model its weights may be stored in f32, bf16 or q8_0
 * @param options rank, alpha, targets and the other fields of PEFT's LoraConfig
 * @returns the adapter, which can be disabled, merged or removed
 * @throws {ConfigError} when an option is out of range, a target matches no layer, or a token is not in the vocabulary
 * @throws {DeviceError} when the adapter does not fit into memory; in that case the model is unchanged
 */
export function applyLora(model: GPT, options: LoraOptions = {}): Lora {
  const { head, generator = new RandomGenerator(options.seed ?? 1337), seed: _, ...shape } = options;
  const given = Object.fromEntries(Object.entries(shape).filter(([, value]) => value !== undefined));
  const { targets = ADAPTER_DEFAULTS.targets } = options;
  const written = targets instanceof RegExp ? targets.source : targets;
  const complete: AdapterShape = { ...ADAPTER_DEFAULTS, ...given, targets: written };
  const lora = attach(model, {
    shape: complete,
    head,
    generator,
    places: targetsOf(model, { ...complete, targets }),
    rankOf: (path) => byPattern(complete.rankPattern, path, { option: "rankPattern", otherwise: complete.rank }),
  });
  lora.trainAlone();
  return lora;
}

/** How {@linkcode attach} creates an adapter, after its layers are determined. */
export interface Attachment {
  readonly shape: AdapterShape;
  readonly head?: Module;
  readonly places: readonly Place[];
  /** The rank for the layer at a path. */ readonly rankOf: (path: string) => number;
  /** Draws A. If undefined, the weights are not initialised. */ readonly generator?: RandomGenerator;
}

/** @internal Adds an adapter to a model. If that fails, the model is unchanged. */
export function attach(model: GPT, { shape, head, places, rankOf, generator }: Attachment): Lora {
  checkShape(shape, model);
  const { noise } = model, { alphaPattern, alpha, rslora, dropout, trainableTokens, modulesToSave } = shape;
  const saved = modulesToSave.map((name) => {
    const found = [...namedModules(model)].filter(([path]) => endsIn(path, name));
    if (found.length > 0) return found;
    const names = [...new Set([...namedModules(model)].map(([path]) => path.replace(/^.*\./, "")))];
    throw new ConfigError(`LoRA: there is no module ${name} to save; the model has ${names.join(", ")}`);
  });
  const lora = new Lora(model, shape, head);
  try {
    for (const place of places) {
      const { path, holder, key } = place, rank = rankOf(path);
      checkRank(rank, path);
      const own = byPattern(alphaPattern, path, { option: "alphaPattern", otherwise: alpha });
      const scaling = own / (rslora ? Math.sqrt(rank) : rank), layer = holder[key] as Linear;
      lora.wrap(place, new LoraLinear(layer, { rank, scaling, dropout, generator, noise }));
    }
    if (trainableTokens.length > 0) {
      const { transformer, lm_head } = model, tied = transformer.wte.weight === lm_head.weight;
      const rows = new TunedRows(transformer.wte, trainableTokens);
      const wrap = (path: string, holder: object, key: string, isHead: boolean) => {
        const record = holder as Record<string, Embedding & Linear>;
        lora.wrap({ path, holder: record, key }, new TunedTokens(record[key], rows, isHead));
      };
      wrap("transformer.wte", transformer, "wte", false);
      if (tied) wrap("lm_head", model, "lm_head", true);
    }
    for (const [path, module] of saved.flat()) lora.swap(path, module);
  } catch (error) {
    lora.remove();
    throw error;
  }
  for (const [, parameter] of lora.namedParameters()) parameter.requiresGrad = false;
  adapters.set(model, [...adaptersOf(model), lora]);
  model.changed();
  return lora;
}

function checkRank(rank: number, path?: string): void {
  if (Number.isSafeInteger(rank) && rank > 0) return;
  throw new ConfigError(`LoRA: rank${path ? ` of ${path}` : ""} is ${rank}; expected a whole number above 0`);
}

function checkShape(shape: AdapterShape, { config: { vocabSize } }: GPT): void {
  const { rank, alpha, dropout, trainableTokens, modulesToSave } = shape;
  checkRank(rank);
  if (!Number.isFinite(alpha)) throw new ConfigError(`LoRA: alpha is ${alpha}; expected a number`);
  if (!(dropout >= 0 && dropout < 1)) throw new ConfigError(`LoRA: dropout is ${dropout}; expected 0 to below 1`);
  const twice = trainableTokens.find((id, i) => trainableTokens.indexOf(id) !== i);
  if (twice !== undefined) throw new ConfigError(`LoRA: trainable token ${twice} is listed twice`);
  const wrong = trainableTokens.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (wrong !== undefined) {
    throw new ConfigError(
      `LoRA: trainable token ${wrong} is not in the vocabulary of ${vocabSize} tokens; add the tokens of a chat template to the model first`,
    );
  }
  if (trainableTokens.length > 0 && modulesToSave.some((name) => endsIn("transformer.wte", name))) {
    throw new ConfigError(
      "LoRA: modulesToSave trains all of wte, so trainableTokens has no effect; remove one of them",
    );
  }
}
