/**
 * The list of served models. It loads them in the worker, and unloads lazy ones when memory is short.
 *
 * Models named on the command line are loaded at the start and stay loaded. Fine-tuned models can be `lazy`: each is
 * loaded at its first request.
 */
import { ChatTemplate } from "../data/chat_template.ts";
import { gib } from "../engine/capacity.ts";
import { CheckpointError, ConfigError, DeviceError } from "../errors.ts";
import { exists, Turns } from "../files/files.ts";
import { completeConfig, type GPTConfig } from "../gpt.ts";
import type { HubProgress } from "../pretrained/hub.ts";
import { describePretrained, findModel, identifyModel } from "../pretrained/load.ts";
import { type ServedModel, Unavailable } from "./engine_api.ts";
import { type AdapterSpec, type LoadedInfo, type ModelSpec, MOST_SLOTS } from "./messages.ts";

/** Seconds after which a client whose model does not fit should retry. */
const COME_AGAIN = 10;

/** Options for loading models. */
export interface ModelsOptions {
  /** Maximum number of bytes for all models, including the keys and values of all their slots. Default: no limit. */
  readonly memory?: number;
  /** Called with notes for the user: one line each, without a newline. */
  readonly onNote?: (line: string) => void;
  /** Called while GPT-2's files are downloaded. */
  readonly onProgress?: (progress: HubProgress) => void;
}

/** The methods of the engine that {@linkcode Models} needs: they load and unload models in the worker. */
export interface ModelsOwner {
  load(spec: ModelSpec | AdapterSpec): Promise<LoadedInfo>;
  unload(id: string): void;
  inUse(which: (entry: Entry) => boolean): boolean;
}

/** A served model and what it is loaded from. */
export interface Entry extends ServedModel {
  readonly spec: ModelSpec | AdapterSpec;
  /** Id of the model whose slots it uses. Certain only after loading. */ base: string;
  /** What the worker reported when it loaded the model. */ info?: LoadedInfo;
  /** Bytes that the model takes. */ bytes: number;
  /** When the model was last requested, by `performance.now()`. */ used: number;
  loaded: boolean;
}

export class Models {
  readonly #entries = new Map<string, Entry>();
  readonly #turns = new Turns();

  constructor(readonly owner: ModelsOwner, readonly options: ModelsOptions) {}

  get all(): readonly Entry[] {
    return [...this.#entries.values()];
  }
  /** Returns a listed model. @throws {ConfigError} if the key can use no model with this name */
  get(id: string, key?: string): Entry {
    const entry = this.#entries.get(id);
    if (entry && (entry.owner === undefined || entry.owner === key)) return entry;
    throw new ConfigError(`No model is called ${id}`);
  }

  /**
   * Lists a model and, unless it is lazy, loads it.
   *
   * @throws {ConfigError} if the model does not exist, or its name is taken
   * @throws {CheckpointError} if the model is damaged, or the adapter was trained on another base
   * @throws {DeviceError} if the model does not fit
   */
  async add(given: ModelSpec | AdapterSpec): Promise<Entry> {
    const { id, owner, lazy = false, created = Math.floor(Date.now() / 1000), ownedBy = "local" } = given;
    if (this.#entries.has(id)) {
      throw new ConfigError(`Two models are called ${id}; give one another name: PATH,name=NAME`);
    }
    const base = "base" in given ? this.#entries.get(given.base) : undefined;
    if ("base" in given && !base) throw new ConfigError(`No model is called ${given.base}`);
    const spec = "base" in given ? await withRun(given) : await this.#found(given);
    // The folder of a run or of a model has a tokenizer and a config. An adapter in PEFT's format uses its base's.
    const named = "base" in spec ? spec.run : spec.path,
      described = named === undefined ? undefined : await describePretrained(named);
    const tokenizer = described?.tokenizer ?? base!.tokenizer, config = completeConfig(described?.config ?? {});
    const entry: Entry = {
      ...{ id, created, ownedBy, tokenizer, spec, owner, base: base?.id ?? id, used: 0, loaded: false },
      // The template comes with the model and is not trusted: it may run for a second at most.
      template: ChatTemplate.of(tokenizer, { name: `The chat template of ${id}`, seconds: 1, megabytes: 64 }),
      endIds: described?.eosTokenIds ?? base!.endIds,
      blockSize: described?.blockSize ?? base!.blockSize,
      vocabSize: described ? config.vocabSize : base!.vocabSize,
      embeddingSize: described ? config.nEmbd : base!.embeddingSize,
      bytes: "base" in spec ? 0 : estimate(config, spec),
    };
    if (this.#entries.has(id)) {
      throw new ConfigError(`Two models are called ${id}; give one another name: PATH,name=NAME`);
    }
    this.#entries.set(id, entry);
    try {
      if (!lazy) await this.load(entry);
    } catch (error) {
      this.#entries.delete(id);
      throw error;
    }
    return entry;
  }
  /** Replaces `path`, which can be a model's name, by its path on the disk. Downloads the model if needed. */
  async #found(spec: ModelSpec): Promise<ModelSpec> {
    return { ...spec, path: (await findModel(spec.path, this.options)).path };
  }

  /**
   * Loads a listed model, unless it is loaded already.
   *
   * @throws {Unavailable} if the model does not fit beside the models in use
   */
  load(entry: Entry): Promise<void> {
    return this.#turns.take(async () => {
      const { spec } = entry, base = "base" in spec ? this.#entries.get(spec.base) : undefined;
      if (base && !base.loaded) await this.#loadNow(base);
      if (!entry.loaded) await this.#loadNow(entry);
    });
  }
  async #loadNow(entry: Entry): Promise<void> {
    this.#makeRoom(entry);
    const { spec } = entry, base = "base" in spec ? this.#entries.get(spec.base) : undefined;
    const info = await this.owner.load("base" in spec ? await placed(spec, base!) : spec);
    if (this.#entries.get(entry.id) !== entry) { // removed while it was loading: no request waits for it
      this.owner.unload(entry.id);
      throw new ConfigError(`No model is called ${entry.id}`);
    }
    for (const note of info.notes) this.options.onNote?.(note);
    Object.assign(entry, { info, loaded: true, base: info.base, endIds: info.endIds });
    if (info.base === entry.id) entry.bytes = info.bytes;
    entry.used = performance.now();
  }
  /** Unloads lazy models until `bytes` fit. Models that have been idle for the longest time go first. */
  #makeRoom({ id, bytes, spec: { lazy } }: Entry): void {
    const { memory = Infinity } = this.options;
    const taken = () =>
      this.all.reduce((sum, entry) => sum + (entry.loaded && entry.base === entry.id ? entry.bytes : 0), 0);
    while (bytes + taken() > memory) {
      const idle = this.all.filter((one) =>
        one.loaded && one.spec.lazy && one.base === one.id && !this.owner.inUse(({ base }) => base === one.id)
      );
      const [longest] = idle.sort((a, b) => a.used - b.used);
      if (longest) this.#unload(longest);
      else if (lazy) throw new Unavailable(COME_AGAIN);
      else {
        throw new DeviceError(
          `${id} takes ${gib(bytes)} with the keys and values of its slots, but of the ${gib(memory)} for models, ` +
            `${gib(taken())} are in use; use fewer --slots, --cache=bf16 or --weights=bf16, or raise --memory`,
        );
      }
    }
  }
  #unload(entry: Entry): void {
    this.owner.unload(entry.id);
    for (const one of this.all) { // the model itself and its adapters
      if (one.base === entry.id) Object.assign(one, { loaded: false, info: undefined });
    }
  }

  /**
   * Stops serving a model.
   *
   * @throws {ConfigError} if there is no such model, an adapter needs it, or it is generating a text
   */
  remove(id: string): void {
    const entry = this.get(id, this.#entries.get(id)?.owner);
    const on = this.all.find(({ spec }) => "base" in spec && spec.base === id);
    if (on) throw new ConfigError(`${id} is in use: it is the base of the adapter ${on.id}`);
    if (this.owner.inUse((other) => other === entry)) throw new ConfigError(`${id} is in use: it is generating texts`);
    if (entry.loaded) this.owner.unload(id);
    this.#entries.delete(id);
    entry.template?.[Symbol.dispose]();
  }
}

/** Sets `run` if the adapter's folder is a run folder. */
async function withRun(spec: AdapterSpec): Promise<AdapterSpec> {
  return { ...spec, run: await exists(`${spec.path}/run.json`) ? spec.path : undefined };
}
/** Sets an adapter's path: for a run, to its best checkpoint, after checking that it was trained on `base`. */
async function placed(spec: AdapterSpec, base: Entry): Promise<AdapterSpec> {
  if ("base" in base.spec) {
    throw new ConfigError(`${base.id} is an adapter itself; name the model that ${spec.id} was trained on`);
  }
  if (spec.run === undefined) return spec;
  const { RunFolder } = await import("../checkpoint/run_folder.ts"),
    run = await RunFolder.open(spec.run),
    of = run.description.base;
  if (!of) {
    throw new ConfigError(`${spec.run} is a run without an adapter; serve it as a model: --model=${spec.run}`);
  }
  const { bytes, checksum } = await identifyModel(base.spec.path);
  if (bytes !== of.identity.bytes || checksum !== of.identity.checksum) {
    throw new CheckpointError(
      `${spec.run} is not an adapter for ${base.id}: it was trained on ${of.name}`,
    );
  }
  return { ...spec, path: (await run.checkpoint("best")).folder };
}

/** Estimates the bytes of a model's weights, keys and values before it is loaded. */
function estimate(config: Required<GPTConfig>, { weights, slots, cache }: ModelSpec): number {
  const { nLayer, nEmbd, nInner, vocabSize, blockSize, tieWordEmbeddings } = config,
    bytes = { f32: 4, bf16: 2, q8_0: 34 / 32 };
  const matrices = nLayer * (4 * nEmbd + 2 * nInner) * nEmbd + (tieWordEmbeddings ? 1 : 2) * vocabSize * nEmbd;
  const slot = bytes[cache] * 2 * nLayer * nEmbd * blockSize, held = bytes[weights] * matrices + 4 * blockSize * nEmbd;
  const count = slots || Math.max(1, Math.min(MOST_SLOTS, Math.floor((2 ** 32 - held) / 2 / slot)));
  return held + count * slot;
}
