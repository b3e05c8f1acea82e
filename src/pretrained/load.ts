/**
 * Loads a trained model and its tokenizer by a name: a run, a folder, a file or a model of the hub. The modules that
 * read each format are imported when they are needed.
 */
import type { ChatTemplate } from "../data/chat_template.ts";
import { system } from "../files/system.ts";
import { Checksum } from "../files/checksum.ts";
import { exists, InputFile, owned, readJson } from "../files/files.ts";
import type { HubProgress } from "./hub.ts";
import type { LoadHuggingFaceOptions } from "../checkpoint/hugging_face.ts";
import type { LoadOptions } from "../checkpoint/tensors.ts";
import type { SavedCheckpoint } from "../checkpoint/checkpoint_folder.ts";
import type { RunFolder } from "../checkpoint/run_folder.ts";
import type { RunBase } from "../checkpoint/run_json.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import type { LoadAdapterOptions } from "../finetune/adapter.ts";
import type { GPT, GPTConfig } from "../gpt.ts";
import type { Module } from "../nn/module.ts";
import type { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** Options of {@linkcode loadPretrained}. */
export interface PretrainedOptions extends LoadOptions {
  /** Replaces the model's own tokenizer: a name (`gpt2`), a folder, or a tokenizer. */
  readonly tokenizer?: string | Tokenizer;
  /** A folder in PEFT's format with an adapter to put on the model. */ readonly adapter?: string;
  /** Which checkpoint of a run: `best`, the default, or `last`. */ readonly checkpoint?: "best" | "last";
  /** Whether the model will be trained; weights in eight bits are then refused. */ readonly trainable?: boolean;
  /** Called with notes for the user, each a line without a newline. */
  readonly onNote?: (line: string) => void;
  /** Called while files are downloaded from the hub. */ readonly onProgress?: (progress: HubProgress) => void;
}

/** A loaded model, the result of {@linkcode loadPretrained}. */
export interface Pretrained {
  /** The model, in evaluation mode. */ readonly model: GPT;
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
  /** Ids of tokens that end a text, or a turn of a chat. Default: the tokenizer's. */
  readonly eosTokenIds?: readonly number[];
  /**
   * The model's chat template, if its files have one. If the template runs in a worker, `using` or the process's exit
   * ends it.
   */
  readonly chatTemplate?: ChatTemplate;
}

/**
 * Loads a model and its tokenizer by a name:
 *
 * - a run folder, with `run.json`: its best checkpoint, or its last; if the run trains an adapter, the base model with
 *   the adapter;
 * - a Hugging Face folder, with `config.json`;
 * - a GGUF file, `NAME.gguf`, with its own tokenizer; weights in q8_0 become f32, unless `weights` is `"q8_0"`;
 * - nanoGPT's `ckpt.pt`, or a folder with such a file: the tokenizer is that of `data/DATASET`, or GPT-2's if there is
 *   none;
 * - `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`: downloaded to the cache folder once.
 *
 * If there is a folder with the name of a model of the hub, the folder is loaded.
 *
 * @returns the model, in evaluation mode, and its tokenizer
 * @throws {ConfigError} if nothing with this name can be loaded, or `checkpoint` is `last` and the model is not a run
 * @throws {CheckpointError} if the files are damaged, the tokenizer belongs to another model, or a download fails
 * @throws {DeviceError} if the weights do not fit into the device's memory
 * @example
 * ```ts ignore
 * const { model, tokenizer } = await loadPretrained("gpt2", { device: await createDevice("auto") });
 * ```
 */
export async function loadPretrained(name: string, options: PretrainedOptions): Promise<Pretrained> {
  const { kind, path } = await findModel(name, options), { tokenizer: asked, onNote = () => {} } = options;
  if (options.checkpoint === "last" && kind !== "run") {
    throw new ConfigError(`${name} is not a run; checkpoint last is only for a run`);
  }
  using source = await OPEN[kind](path, options);
  // The tokenizer is loaded before the weights, because it is small and can be missing or damaged.
  const tokenizer = typeof asked === "object" ? asked : asked ? await byName(asked) : await source.tokenizer();
  const { endIds } = await import("../tokenizer/to_hugging_face.ts");
  const { ChatTemplate } = await import("../data/chat_template.ts");
  const ends = await source.ends?.() ?? endIds(tokenizer);
  const model = await source.load(options), { vocabSize } = model.config;
  if (options.adapter !== undefined) await putOn(model, options.adapter, { onNote });
  const loaded: Pretrained = {
    model,
    tokenizer,
    eosTokenIds: ends.filter((id) => id < vocabSize),
    chatTemplate: ChatTemplate.of(tokenizer, { name: `The chat template of ${name}` }),
  };
  if (tokenizer.vocabSize <= vocabSize) return loaded;
  const sizes = `${tokenizer.vocabSize} tokens, and the model ${vocabSize}`;
  if (kind === "hugging_face" && !asked) { // transformers can use such a folder
    onNote(`${name}: its tokenizer has ${sizes}; the model cannot read texts with the additional tokens`);
    return loaded;
  }
  model.dispose();
  throw new CheckpointError(`The tokenizer does not belong to ${name}: it has ${sizes}${source.hint ?? ""}`);
}

/** The description of a model, the result of {@linkcode describePretrained}. */
export interface Description {
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
  /** The most tokens that the model sees at once. */ readonly blockSize: number;
  /** The model's sizes, from its files. */ readonly config: Partial<GPTConfig>;
  /** Ids of tokens that end a text. */ readonly eosTokenIds: readonly number[];
}

/**
 * Reads a model's tokenizer and sizes without its weights.
 *
 * @param name a name for {@linkcode loadPretrained}
 * @throws {ConfigError} if there is no model with this name
 * @throws {CheckpointError} if the files are damaged, or a download fails
 */
export async function describePretrained(
  name: string,
  options: Pick<PretrainedOptions, "tokenizer" | "onProgress"> = {},
): Promise<Description> {
  const { kind, path } = await findModel(name, options), { tokenizer: asked } = options;
  using source = await OPEN[kind](path, {});
  const tokenizer = typeof asked === "object" ? asked : asked ? await byName(asked) : await source.tokenizer();
  const { endIds } = await import("../tokenizer/to_hugging_face.ts"), config = await source.config();
  const { vocabSize = Infinity } = config, ends = await source.ends?.() ?? endIds(tokenizer);
  return { tokenizer, blockSize: Number(config.blockSize), config, eosTokenIds: ends.filter((id) => id < vocabSize) };
}

/** The files of a model, found by its name. */
export interface FoundModel {
  /** The files' format. */ readonly kind: "run" | "hugging_face" | "nanogpt" | "gguf";
  /** Path of the folder or the file. */ readonly path: string;
}

/**
 * Finds the files of a model by a name for {@linkcode loadPretrained}. A model of the hub is downloaded.
 *
 * @throws {ConfigError} if there is no model with this name
 * @throws {CheckpointError} if a download fails
 */
export async function findModel(
  name: string,
  { onProgress }: Pick<PretrainedOptions, "onProgress"> = {},
): Promise<FoundModel> {
  const file = (part: string) => `${name}/${part}`;
  if (await exists(file("run.json"))) return { kind: "run", path: name };
  if (await exists(file("config.json"))) return { kind: "hugging_face", path: name };
  if (name.endsWith(".pt")) return { kind: "nanogpt", path: name };
  if (name.endsWith(".gguf")) return { kind: "gguf", path: name };
  if (await exists(file("ckpt.pt"))) return { kind: "nanogpt", path: file("ckpt.pt") };
  if (await exists(file("adapter_config.json"))) {
    throw new ConfigError(
      `${name} is an adapter, not a model: name the model that it was trained on, and pass --adapter=${name} (the option \`adapter\`)`,
    );
  }
  const { downloadModel, HUB_MODELS, isHubModel } = await import("./hub.ts");
  if (isHubModel(name)) return { kind: "hugging_face", path: await downloadModel(name, { onProgress }) };
  throw new ConfigError(
    `No model ${JSON.stringify(name)}: expected a run folder (with run.json), a Hugging Face folder ` +
      `(with config.json), nanoGPT's ckpt.pt, a GGUF file, or one of ${HUB_MODELS.join(", ")}`,
  );
}

/** A model's open files. */
interface Source extends Disposable {
  /** Loads the model's tokenizer. */
  tokenizer(): Promise<Tokenizer>;
  load(options: PretrainedOptions): Promise<GPT>;
  /** Reads the model's sizes. */
  config(): Partial<GPTConfig> | Promise<Partial<GPTConfig>>;
  /** Ids of tokens that end a text; undefined if the files do not name any. */
  ends?(): Promise<readonly number[] | undefined>;
  /** The end of the error message if the tokenizer belongs to another model. */
  readonly hint?: string;
}

/** @internal Puts an adapter on a model. If that fails, the model is disposed of. */
export async function putOn(model: GPT, adapter: string, options: LoadAdapterOptions): Promise<void> {
  const { loadAdapter } = await import("../finetune/adapter.ts");
  await owned(model, (model) => loadAdapter(adapter, model, options));
}

const OPEN: Record<FoundModel["kind"], (path: string, options: Pick<PretrainedOptions, "onNote">) => Promise<Source>> =
  {
    async run(path) {
      const run = await (await import("../checkpoint/run_folder.ts")).RunFolder.open(path);
      return {
        tokenizer: () => runTokenizer(run),
        load: (options) => loadRun(run, options),
        config: () => run.description.model as Partial<GPTConfig>,
        [Symbol.dispose]() {},
      };
    },
    async hugging_face(path) {
      const { fromHuggingFaceConfig } = await import("../checkpoint/hugging_face_config.ts"),
        config = `${path}/config.json`;
      return {
        tokenizer: () => byName(path),
        load: async (options: HeadedOptions) =>
          await (await import("../checkpoint/hugging_face.ts")).loadHuggingFace(path, options),
        ends: () => endsOf(path),
        config: async () => fromHuggingFaceConfig(await readJson(config), config, { headed: true }),
        [Symbol.dispose]() {},
      };
    },
    async nanogpt(path, options) {
      const file = await (await import("../checkpoint/nanogpt.ts")).NanoGPTFile.open(path, options);
      const { dataset } = file.flags, { vocabulary, hint } = await nanoGPTVocabulary(dataset);
      const load = async (options: PretrainedOptions) => (await file.model(options)).eval(), { config } = file;
      return {
        tokenizer: () => byName(vocabulary),
        load,
        config: () => config,
        hint,
        [Symbol.dispose]: () => file.close(),
      };
    },
    async gguf(path, options) {
      const file = await (await import("../checkpoint/gguf.ts")).GgufModel.open(path, options);
      const load = async (options: PretrainedOptions) => {
        if (options.trainable) file.checkTrainable();
        return (await file.model(options)).eval();
      };
      return {
        tokenizer: async () => await file.tokenizer(),
        load,
        config: () => file.config,
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
  };

const byName = async (name: string) => await (await import("../tokenizer/load.ts")).loadTokenizer(name);

/** The ids at which transformers ends a text: from generation_config.json or config.json. */
async function endsOf(folder: string): Promise<number[] | undefined> {
  for (const name of ["generation_config.json", "config.json"]) {
    const path = `${folder}/${name}`, { eos_token_id: ends } = await exists(path) ? await readJson(path) : {};
    if (ends === undefined || ends === null) continue; // the tokenizer may name an end-of-text token
    const ids = [ends].flat();
    if (ids.every((id): id is number => Number.isInteger(id) && id as number >= 0)) return ids;
    throw new CheckpointError(
      `${path} is damaged: eos_token_id is ${JSON.stringify(ends)}, expected one id or several`,
    );
  }
}

/**
 * The folder or the name of the tokenizer for a ckpt.pt, which does not store one. Looks in the same places as
 * nanoGPT's sample.py.
 *
 * @param dataset the dataset in the checkpoint's flags; only a plain name counts, so that a file cannot point to
 *   another folder
 * @returns the tokenizer, and the end of the message to print if the tokenizer does not belong to the model
 */
export async function nanoGPTVocabulary(dataset: unknown): Promise<{ vocabulary: string; hint: string }> {
  const plain = typeof dataset === "string" && /^[\w.-]+$/.test(dataset) && !/^\.+$/.test(dataset);
  const folder = `data/${dataset}`,
    named = "Pass the folder with its tokenizer: --tokenizer=FOLDER (the option `tokenizer`)";
  if (plain) {
    for (const name of ["meta.pkl", "meta.json"]) {
      if (await exists(`${folder}/${name}`)) {
        return { vocabulary: folder, hint: `; the tokenizer is from ${folder}/${name}\n${named}` };
      }
    }
  }
  const looked = plain ? `its dataset has no ${folder}/meta.pkl` : "it names no dataset in data/";
  return { vocabulary: "gpt2", hint: `; it is GPT-2's, because a ckpt.pt stores no tokenizer and ${looked}\n${named}` };
}

/**
 * Loads the tokenizer of a run.
 *
 * @throws {CheckpointError} if its vocabulary is damaged, or does not fit the model
 * @throws {DataError} if the npm package with its vocabulary cannot be loaded
 */
export async function runTokenizer(run: RunFolder): Promise<Tokenizer> {
  const { vocabulary, model } = run.description, vocabSize = Number(model.vocabSize);
  const { tokenizerFromJSON } = await import("../tokenizer/load.ts");
  const tokenizer = await tokenizerFromJSON(vocabulary, `${run.path}/vocabulary.json`);
  const characters = "characters" in tokenizer;
  // A model can have more tokens than its tokenizer, because its vocabulary is padded to a multiple of 64. It can lack
  // tokens that were added to the tokenizer; texts without these tokens still work.
  const { specialTokens, addedTokens } = tokenizer as Partial<BytePairTokenizer>;
  const added = (specialTokens?.size ?? 0) + (addedTokens?.size ?? 0);
  if (characters ? tokenizer.vocabSize === vocabSize : tokenizer.vocabSize - added <= vocabSize) return tokenizer;
  const there = `vocabulary.json has ${tokenizer.vocabSize} ${characters ? "characters" : "tokens"}`;
  throw new CheckpointError(`${run.path} is damaged: ${there}, and the model in run.json has vocabSize ${vocabSize}`);
}

/**
 * Loads the model of a run's best checkpoint, or of its last, in evaluation mode.
 *
 * @throws {CheckpointError} if there is no checkpoint, or it is damaged
 * @throws {DeviceError} if the weights do not fit into the device's memory
 */
export async function loadRun(
  run: RunFolder,
  options: Omit<PretrainedOptions, "tokenizer"> & {
    /**
     * Reads more of the checkpoint besides the model. Returns the model's head, if it has one: an adapter can store its
     * weights.
     */
    readonly more?: (saved: SavedCheckpoint, model: GPT) => Promise<Module | undefined>;
  },
): Promise<GPT> {
  const { checkpoint = "best", onNote = () => {}, more } = options, { base } = run.description;
  if (base) {
    const model = await loadBase(run, options);
    await run.read(checkpoint, async (saved) => {
      await putOn(model, saved.folder, { head: await more?.(saved, model), onNote });
    });
    if (options.trainable) { // a new run that begins with this run's model trains all of its weights
      const { adaptersOf } = await import("../finetune/lora.ts");
      for (const lora of adaptersOf(model)) lora.merge();
      model.unfreeze();
    }
    return model.eval();
  }
  const { loadModel, loadTensors } = await import("../checkpoint/tensors.ts");
  try {
    const fill = (model: GPT) =>
      run.read(checkpoint, async (saved) => {
        await loadTensors(saved.model, model.namedParameters(), { onNote });
        await more?.(saved, model);
      });
    return (await loadModel(run.description.model, options, fill)).eval();
  } catch (error) { // a run.json that was edited by hand can have sizes that are not valid
    if (error instanceof ConfigError) throw new CheckpointError(`${run.path}/run.json is damaged: ${error.message}`);
    throw error;
  }
}

/**
 * Loads the base model of a run's adapter.
 *
 * @throws {CheckpointError} if the run began with another model
 * @throws {ConfigError} if there is no model with its name
 */
export async function loadBase(
  run: RunFolder,
  options: Omit<PretrainedOptions, "tokenizer" | "adapter">,
): Promise<GPT> {
  const { name } = run.description.base!;
  // These options concern the run's model, not its base model.
  const rest = { ...options, checkpoint: undefined, adapter: undefined, tokenizer: undefined };
  await checkIdentity(run.description.base!, `${run.path} has an adapter for`);
  const { vocabSize } = await runTokenizer(run),
    { vocabSize: known } = (await describePretrained(name, rest)).tokenizer;
  // The base is loaded without its head, if it has one: the trained head is in the adapter's files.
  const headless: HeadedOptions = { ...rest, inference: vocabSize > known ? false : rest.inference, head: () => [] };
  const { model } = await loadPretrained(name, headless);
  model.resizeTokenEmbeddings(vocabSize, { known }); // the rows of tokens that the run added are in the adapter's files
  return model;
}

/**
 * Checks that a model still has the weights with which a run began.
 *
 * @param of the beginning of the error message: "out has an adapter for"
 * @throws {CheckpointError} if the model's weights have changed, or cannot be read
 */
export async function checkIdentity({ name, identity }: RunBase, of: string): Promise<void> {
  const found = await identifyModel(name).catch((error) => {
    throw new CheckpointError(`${of} ${name}, which cannot be read: ${error.message}`);
  });
  if (found.checksum === identity.checksum && found.bytes === identity.bytes) return;
  throw new CheckpointError(
    `${of} ${name}, which has changed: the run began with other weights`,
  );
}

/** Options with `head`, which makes the head of a Hugging Face folder. Without it, a folder with a head is refused. */
type HeadedOptions = PretrainedOptions & Pick<LoadHuggingFaceOptions, "head">;

/** Number of parts of a file that are hashed, and the bytes of each part. */
const PARTS = 64, PART = 2 ** 14;

/**
 * Identifies a model's weights: their number of bytes, and a checksum of evenly spaced parts of their files. Parts are
 * enough, because training changes every weight.
 */
export async function identifyModel(name: string): Promise<RunBase["identity"]> {
  const found = await findModel(name), { path } = found, checksum = new Checksum();
  let bytes = 0;
  for (const part of await weightFiles(found)) {
    using file = await InputFile.open(part);
    const { size } = file, buffer = new Uint8Array(Math.min(PART, size)), last = size - buffer.length;
    for (let i = 0; i < PARTS; i++) {
      await file.fill(Math.floor(last * i / (PARTS - 1)), buffer);
      checksum.add(buffer);
    }
    bytes += size;
  }
  if (bytes === 0) throw new CheckpointError(`${path} has no weights`);
  return { bytes, checksum: `${checksum}` };
}

async function weightFiles({ kind, path }: FoundModel): Promise<string[]> {
  if (kind === "run") {
    const run = await (await import("../checkpoint/run_folder.ts")).RunFolder.open(path);
    const { folder, model } = await run.checkpoint("best"),
      { ADAPTER_WEIGHTS } = await import("../checkpoint/adapter.ts");
    return [run.description.base ? `${folder}/${ADAPTER_WEIGHTS}` : model];
  }
  if (kind !== "hugging_face") return [path];
  const names = await Array.fromAsync(system.readDir(path), ({ name }) => name);
  return names.filter((name) => /\.(safetensors|bin)$/.test(name)).sort().map((name) => `${path}/${name}`);
}
