/** A trained model with its tokenizer, by its name: a run, a folder, a file or a model of the hub. What reads it is imported when it is needed. */
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

/** How {@linkcode loadPretrained} loads. */
export interface PretrainedOptions extends LoadOptions {
  /** Instead of the one that is stored with the model: a name (`gpt2`), a folder, or a tokenizer. */
  readonly tokenizer?: string | Tokenizer;
  /** A folder of PEFT's with an adapter for the model, which is put on it. */ readonly adapter?: string;
  /** Of a run: `best`, the default, or `last`. */ readonly checkpoint?: "best" | "last";
  /** Whether the model is to be trained: then weights in eight bits are refused. */ readonly trainable?: boolean;
  /** Takes a line for the user, without a newline, when something is worth knowing. */
  readonly onNote?: (line: string) => void;
  /** Called while files of GPT-2 are downloaded. */ readonly onProgress?: (progress: HubProgress) => void;
}

/** What {@linkcode loadPretrained} gives. */
export interface Pretrained {
  /** In evaluation mode. */ readonly model: GPT;
  /** What its ids mean. */ readonly tokenizer: Tokenizer;
  /** Tokens at which a text, or a turn of a chat, ends. Default: those of the tokenizer. */
  readonly eosTokenIds?: readonly number[];
  /** How chats are written for it, where its files say so. Its worker, where it needs one, ends with `using` or with the process. */
  readonly chatTemplate?: ChatTemplate;
}

/**
 * Loads a model to generate with:
 *
 * - a run folder, with `run.json`: its best checkpoint, or its last; of a run that trains an adapter, the base with the adapter on it;
 * - a Hugging Face folder, with `config.json`;
 * - a GGUF file, `NAME.gguf`, with its own tokenizer; weights in q8_0 become f32, or with `weights: "q8_0"` stay as they are;
 * - nanoGPT's `ckpt.pt`, or the folder with it: the tokenizer is that of `data/DATASET`, or GPT-2's where nothing is there;
 * - `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`: downloaded into the cache folder once.
 *
 * A folder of such a name goes before the download.
 *
 * @returns the model, in evaluation mode, and its tokenizer
 * @throws {ConfigError} when there is nothing of that name that can be read, or `last` is asked of what is not a run
 * @throws {CheckpointError} when what is there is damaged, or its tokenizer is of another model; when a download fails
 * @throws {DeviceError} when the weights do not fit into the device's memory
 * @example
 * ```ts ignore
 * const { model, tokenizer } = await loadPretrained("gpt2", { device: await createDevice("auto") });
 * ```
 */
export async function loadPretrained(name: string, options: PretrainedOptions): Promise<Pretrained> {
  const { kind, path } = await findModel(name, options), { tokenizer: asked, onNote = () => {} } = options;
  if (options.checkpoint === "last" && kind !== "run") {
    throw new ConfigError(`${name} is not a run, and only a run has a last checkpoint beside its best`);
  }
  using source = await OPEN[kind](path, options);
  // What is small and may be missing or damaged first.
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
  if (kind === "hugging_face" && !asked) { // transformers generates with such a folder
    onNote(`${name}: its tokenizer has ${sizes}; a text with one of the others cannot be read by the model`);
    return loaded;
  }
  model.dispose();
  throw new CheckpointError(`The tokenizer is not that of ${name}: it has ${sizes}${source.hint ?? ""}`);
}

/** What {@linkcode describePretrained} tells of a model. */
export interface Description {
  /** What its ids mean. */ readonly tokenizer: Tokenizer;
  /** The most tokens that it sees at once. */ readonly blockSize: number;
  /** Its sizes, as its files say. */ readonly config: Partial<GPTConfig>;
  /** Tokens at which a text ends. */ readonly eosTokenIds: readonly number[];
}

/**
 * What has to be known of a model to make tokens for it, without its weights.
 *
 * @param name as {@linkcode loadPretrained} takes it
 * @throws {ConfigError} when there is nothing of that name
 * @throws {CheckpointError} when what is there is damaged, or a download fails
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

/** What stands under a model's name. */
export interface FoundModel {
  /** What can read it. */ readonly kind: "run" | "hugging_face" | "nanogpt" | "gguf";
  /** Of the folder, or of the file. */ readonly path: string;
}

/**
 * Where a model is that {@linkcode loadPretrained} takes by this name. One of the hub is downloaded.
 *
 * @throws {ConfigError} when there is nothing of that name
 * @throws {CheckpointError} when a download fails
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
      `${name} is an adapter, not a model: name the model that it was trained on, and --adapter=${name} (the option \`adapter\`)`,
    );
  }
  const { downloadModel, HUB_MODELS, isHubModel } = await import("./hub.ts");
  if (isHubModel(name)) return { kind: "hugging_face", path: await downloadModel(name, { onProgress }) };
  throw new ConfigError(
    `No model ${JSON.stringify(name)}: expected a run folder, with run.json, a Hugging Face folder, ` +
      `with config.json, nanoGPT's ckpt.pt, a GGUF file, or one of ${HUB_MODELS.join(", ")}`,
  );
}

/** A model's files, open. */
interface Source extends Disposable {
  /** The one that belongs to the model. */
  tokenizer(): Promise<Tokenizer>;
  load(options: PretrainedOptions): Promise<GPT>;
  /** The model's. */
  config(): Partial<GPTConfig> | Promise<Partial<GPTConfig>>;
  /** Tokens at which a text ends; undefined where it does not say. */
  ends?(): Promise<readonly number[] | undefined>;
  /** What to say where that tokenizer is of another model. */
  readonly hint?: string;
}

/** @internal Puts an adapter on a model, which is disposed of where that fails. */
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

/** Where transformers ends a text of a folder's model: as generation_config.json says, or config.json. */
async function endsOf(folder: string): Promise<number[] | undefined> {
  for (const name of ["generation_config.json", "config.json"]) {
    const path = `${folder}/${name}`, { eos_token_id: ends } = await exists(path) ? await readJson(path) : {};
    if (ends === undefined || ends === null) continue; // the tokenizer may know one
    const ids = [ends].flat();
    if (ids.every((id): id is number => Number.isInteger(id) && id as number >= 0)) return ids;
    throw new CheckpointError(
      `${path} is damaged: eos_token_id is ${JSON.stringify(ends)}, expected one id or several`,
    );
  }
}

/**
 * The folder or the name of a ckpt.pt's tokenizer, where nanoGPT's sample.py looks: it does not hold one.
 *
 * @param dataset of its flags: one plain name, for a file from elsewhere must not lead to another folder
 * @returns also what to say where it is not the model's
 */
export async function nanoGPTVocabulary(dataset: unknown): Promise<{ vocabulary: string; hint: string }> {
  const plain = typeof dataset === "string" && /^[\w.-]+$/.test(dataset) && !/^\.+$/.test(dataset);
  const folder = `data/${dataset}`,
    named = "Name the folder with its tokenizer: --tokenizer=FOLDER (the option `tokenizer`)";
  if (plain) {
    for (const name of ["meta.pkl", "meta.json"]) {
      if (await exists(`${folder}/${name}`)) {
        return { vocabulary: folder, hint: `; it is that of ${folder}/${name}\n${named}` };
      }
    }
  }
  const looked = plain ? `${folder}/meta.pkl, its dataset's, is not there` : "it names no dataset in data/";
  return { vocabulary: "gpt2", hint: `; it is GPT-2's, for a ckpt.pt holds none, and ${looked}\n${named}` };
}

/**
 * The tokenizer of a run.
 *
 * @throws {CheckpointError} when its vocabulary is damaged, or not the model's
 * @throws {DataError} when the package with its vocabulary cannot be had
 */
export async function runTokenizer(run: RunFolder): Promise<Tokenizer> {
  const { vocabulary, model } = run.description, vocabSize = Number(model.vocabSize);
  const { tokenizerFromJSON } = await import("../tokenizer/load.ts");
  const tokenizer = await tokenizerFromJSON(vocabulary, `${run.path}/vocabulary.json`);
  const characters = "characters" in tokenizer;
  // A model may know more tokens than there are: its vocabulary is padded to a multiple of 64. Tokens that were added to its
  // tokenizer it may not know: then a text without them is read all the same.
  const { specialTokens, addedTokens } = tokenizer as Partial<BytePairTokenizer>;
  const added = (specialTokens?.size ?? 0) + (addedTokens?.size ?? 0);
  if (characters ? tokenizer.vocabSize === vocabSize : tokenizer.vocabSize - added <= vocabSize) return tokenizer;
  const there = `vocabulary.json has ${tokenizer.vocabSize} ${characters ? "characters" : "tokens"}`;
  throw new CheckpointError(`${run.path} is damaged: ${there}, and the model in run.json has vocabSize ${vocabSize}`);
}

/**
 * The model of a run's best checkpoint, or of its last, in evaluation mode.
 *
 * @throws {CheckpointError} when there is no checkpoint, or it is damaged
 * @throws {DeviceError} when the weights do not fit into the device's memory
 */
export async function loadRun(
  run: RunFolder,
  options: Omit<PretrainedOptions, "tokenizer"> & {
    /** Reads more of the checkpoint than the model, and gives the head, which an adapter may have been saved with. */
    readonly more?: (saved: SavedCheckpoint, model: GPT) => Promise<Module | undefined>;
  },
): Promise<GPT> {
  const { checkpoint = "best", onNote = () => {}, more } = options, { base } = run.description;
  if (base) {
    const model = await loadBase(run, options);
    await run.read(checkpoint, async (saved) => {
      await putOn(model, saved.folder, { head: await more?.(saved, model), onNote });
    });
    if (options.trainable) { // all of it, so that the run that follows has weights of its own
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
  } catch (error) { // run.json is a file that anybody may have edited
    if (error instanceof ConfigError) throw new CheckpointError(`${run.path}/run.json is damaged: ${error.message}`);
    throw error;
  }
}

/**
 * The model that a run's adapter stands on.
 *
 * @throws {CheckpointError} when it is not the one that the run has begun with
 * @throws {ConfigError} when there is nothing of its name
 */
export async function loadBase(
  run: RunFolder,
  options: Omit<PretrainedOptions, "tokenizer" | "adapter">,
): Promise<GPT> {
  const { name } = run.description.base!;
  // What else is asked for is meant for the run's model, not for its base.
  const rest = { ...options, checkpoint: undefined, adapter: undefined, tokenizer: undefined };
  await checkIdentity(run.description.base!, `${run.path} has an adapter for`);
  const { vocabSize } = await runTokenizer(run),
    { vocabSize: known } = (await describePretrained(name, rest)).tokenizer;
  // A base with a head is read without it: the adapter has the head that was trained.
  const headless: HeadedOptions = { ...rest, inference: vocabSize > known ? false : rest.inference, head: () => [] };
  const { model } = await loadPretrained(name, headless);
  model.resizeTokenEmbeddings(vocabSize, { known }); // the adapter has the rows of tokens that the run has added
  return model;
}

/**
 * That a model is the one that a run has begun with.
 *
 * @param of what the run has it for, as a message begins: "out has an adapter for"
 * @throws {CheckpointError} when it is another, or cannot be read
 */
export async function checkIdentity({ name, identity }: RunBase, of: string): Promise<void> {
  const found = await identifyModel(name).catch((error) => {
    throw new CheckpointError(`${of} ${name}, which cannot be read: ${error.message}`);
  });
  if (found.checksum === identity.checksum && found.bytes === identity.bytes) return;
  throw new CheckpointError(
    `${of} ${name}, which has changed since: its weights are not those that the run began with`,
  );
}

/** A folder of transformers' may have a head, which `head` makes; without it such a folder is refused. */
type HeadedOptions = PretrainedOptions & Pick<LoadHuggingFaceOptions, "head">;

/** How many parts of a file are looked at, and how many bytes each has. */
const PARTS = 64, PART = 2 ** 14;

/**
 * Tells a model's weights from others: how many bytes they take, and a checksum of parts that lie evenly in their files. Training changes every weight, so a part tells.
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
