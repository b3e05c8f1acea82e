/**
 * The models that are served: listed, loaded by the worker, and, where memory is short, those unloaded again that can be had once more.
 *
 * Models that the command line names are loaded at the start and stay. Tuned ones may be `lazy`: each is loaded at its first request.
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

/** Seconds after which a client whose model does not fit is to come again. */
const COME_AGAIN = 10;

/** What models are loaded with. */
export interface ModelsOptions {
  /** Bytes that all models may take together, with the keys and values of all their slots. Default: any. */
  readonly memory?: number;
  /** Takes a line, without a newline, on what is worth knowing. */
  readonly onNote?: (line: string) => void;
  /** Called while files of GPT-2 are downloaded. */
  readonly onProgress?: (progress: HubProgress) => void;
}

/** What asks the worker, and knows which models have texts that are not over. */
export interface ModelsOwner {
  load(spec: ModelSpec | AdapterSpec): Promise<LoadedInfo>;
  unload(id: string): void;
  inUse(which: (entry: Entry) => boolean): boolean;
}

/** A model with what it is loaded from. */
export interface Entry extends ServedModel {
  readonly spec: ModelSpec | AdapterSpec;
  /** Whose slots its texts have: known for sure once it has been loaded. */ base: string;
  /** What the worker says of it, while it is loaded. */ info?: LoadedInfo;
  /** Bytes that it takes. */ bytes: number;
  /** When it was last asked for. */ used: number;
  loaded: boolean;
}

export class Models {
  readonly #entries = new Map<string, Entry>();
  readonly #turns = new Turns();

  constructor(readonly owner: ModelsOwner, readonly options: ModelsOptions) {}

  get all(): readonly Entry[] {
    return [...this.#entries.values()];
  }
  /** @throws {ConfigError} when there is none of this name for this key */
  get(id: string, key?: string): Entry {
    const entry = this.#entries.get(id);
    if (entry && (entry.owner === undefined || entry.owner === key)) return entry;
    throw new ConfigError(`No model is called ${id}`);
  }

  /**
   * Lists a model and, unless it is lazy, loads it.
   *
   * @throws {ConfigError} when there is none, or one of its name is served
   * @throws {CheckpointError} when it is damaged, or an adapter of another base
   * @throws {DeviceError} when it does not fit
   */
  async add(given: ModelSpec | AdapterSpec): Promise<Entry> {
    const { id, owner, lazy = false, created = Math.floor(Date.now() / 1000), ownedBy = "local" } = given;
    if (this.#entries.has(id)) throw new ConfigError(`Two models are called ${id}: name one, as PATH,name=NAME`);
    const base = "base" in given ? this.#entries.get(given.base) : undefined;
    if ("base" in given && !base) throw new ConfigError(`No model is called ${given.base}`);
    const spec = "base" in given ? await withRun(given) : await this.#found(given);
    // What its own files say, where they say it.
    const named = "base" in spec ? spec.run : spec.path,
      described = named === undefined ? undefined : await describePretrained(named);
    const tokenizer = described?.tokenizer ?? base!.tokenizer, config = completeConfig(described?.config ?? {});
    const entry: Entry = {
      ...{ id, created, ownedBy, tokenizer, spec, owner, base: base?.id ?? id, used: 0, loaded: false },
      // It comes with the model, and so from elsewhere: a loop in it ends after a second.
      template: ChatTemplate.of(tokenizer, { name: `The chat template of ${id}`, seconds: 1, megabytes: 64 }),
      endIds: described?.eosTokenIds ?? base!.endIds,
      blockSize: described?.blockSize ?? base!.blockSize,
      vocabSize: described ? config.vocabSize : base!.vocabSize,
      embeddingSize: described ? config.nEmbd : base!.embeddingSize,
      bytes: "base" in spec ? 0 : estimate(config, spec),
    };
    if (this.#entries.has(id)) throw new ConfigError(`Two models are called ${id}: name one, as PATH,name=NAME`);
    this.#entries.set(id, entry);
    try {
      if (!lazy) await this.load(entry);
    } catch (error) {
      this.#entries.delete(id);
      throw error;
    }
    return entry;
  }
  /** With where it is, downloaded if need be. */
  async #found(spec: ModelSpec): Promise<ModelSpec> {
    return { ...spec, path: (await findModel(spec.path, this.options)).path };
  }

  /**
   * Loads what is listed, unless it is loaded.
   *
   * @throws {Unavailable} when it does not fit beside what is in use
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
    if (this.#entries.get(entry.id) !== entry) { // removed meanwhile: nobody waited for it any more
      this.owner.unload(entry.id);
      throw new ConfigError(`No model is called ${entry.id}`);
    }
    for (const note of info.notes) this.options.onNote?.(note);
    Object.assign(entry, { info, loaded: true, base: info.base, endIds: info.endIds });
    if (info.base === entry.id) entry.bytes = info.bytes;
    entry.used = performance.now();
  }
  /** Unloads those that have been idle for longest, as far as needed. */
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
          `${id} takes ${gib(bytes)} with the keys and values of its slots, and of the ${
            gib(memory)
          } that models may take ` +
            `${
              gib(taken())
            } are in use: --slots, --cache=bf16 and --weights make it smaller, and --memory says how much there is`,
        );
      }
    }
  }
  #unload(entry: Entry): void {
    this.owner.unload(entry.id);
    for (const one of this.all) { // its adapters, too
      if (one.base === entry.id) Object.assign(one, { loaded: false, info: undefined });
    }
  }

  /**
   * Serves it no longer.
   *
   * @throws {ConfigError} when there is none, an adapter stands on it, or a text of it is being written
   */
  remove(id: string): void {
    const entry = this.get(id, this.#entries.get(id)?.owner);
    const on = this.all.find(({ spec }) => "base" in spec && spec.base === id);
    if (on) throw new ConfigError(`${id} is in use: ${on.id} stands on it`);
    if (this.owner.inUse((other) => other === entry)) throw new ConfigError(`${id} is in use: texts are being written`);
    if (entry.loaded) this.owner.unload(id);
    this.#entries.delete(id);
    entry.template?.[Symbol.dispose]();
  }
}

/** Says whether an adapter is a run's. */
async function withRun(spec: AdapterSpec): Promise<AdapterSpec> {
  return { ...spec, run: await exists(`${spec.path}/run.json`) ? spec.path : undefined };
}
/** Where an adapter lies now: of a run its best checkpoint, whose base has to be the one that it is put on. */
async function placed(spec: AdapterSpec, base: Entry): Promise<AdapterSpec> {
  if ("base" in base.spec) {
    throw new ConfigError(`${base.id} is an adapter itself; name the model that ${spec.id} was trained on`);
  }
  if (spec.run === undefined) return spec;
  const { RunFolder } = await import("../checkpoint/run_folder.ts"),
    run = await RunFolder.open(spec.run),
    of = run.description.base;
  if (!of) {
    throw new ConfigError(`${spec.run} is a run without an adapter: it is a model of its own, --model=${spec.run}`);
  }
  const { bytes, checksum } = await identifyModel(base.spec.path);
  if (bytes !== of.identity.bytes || checksum !== of.identity.checksum) {
    throw new CheckpointError(
      `${spec.run} has an adapter of another base than ${base.id}: it was trained on ${of.name}`,
    );
  }
  return { ...spec, path: (await run.checkpoint("best")).folder };
}

/** Bytes of weights, keys and values, before it is loaded. */
function estimate(config: Required<GPTConfig>, { weights, slots, cache }: ModelSpec): number {
  const { nLayer, nEmbd, nInner, vocabSize, blockSize, tieWordEmbeddings } = config,
    bytes = { f32: 4, bf16: 2, q8_0: 34 / 32 };
  const matrices = nLayer * (4 * nEmbd + 2 * nInner) * nEmbd + (tieWordEmbeddings ? 1 : 2) * vocabSize * nEmbd;
  const slot = bytes[cache] * 2 * nLayer * nEmbd * blockSize, held = bytes[weights] * matrices + 4 * blockSize * nEmbd;
  const count = slots || Math.max(1, Math.min(MOST_SLOTS, Math.floor((2 ** 32 - held) / 2 / slot)));
  return held + count * slot;
}
