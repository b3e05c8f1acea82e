/** A trained model with its tokenizer, from wherever it is kept. What reads it is loaded when it is needed. */
import { exists } from "../files/files.ts";
import type { HubProgress } from "./hub.ts";
import type { Device } from "../engine/device.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { GPT, type GPTConfig, type GPTOptions } from "../gpt.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

export interface PretrainedOptions {
  readonly device: Device;
  /** Instead of the one that is kept with the model: a name (`gpt2`), a folder, or a tokenizer. */
  readonly tokenizer?: string | Tokenizer;
  /** How matrices are kept: `f32`, the default, or `bf16`, rounded, in half the memory, for inference alone. */
  readonly weights?: GPTOptions["weights"];
  /** Instead of the model's own: to train it further. */
  readonly dropout?: number;
  /** Takes a line for the user, without a newline, when something is worth knowing. */
  readonly onNote?: (line: string) => void;
  /** Called while files of GPT-2 are downloaded. */
  readonly onProgress?: (progress: HubProgress) => void;
}

/** What {@linkcode loadPretrained} gives. */
export interface Pretrained {
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
}

/**
 * Loads a model to generate with:
 *
 * - a run folder, with `run.json`: its best checkpoint;
 * - a Hugging Face folder, with `config.json`;
 * - nanoGPT's `ckpt.pt`, or the folder with it: the tokenizer is that of `data/DATASET`, or GPT-2's where nothing is there;
 * - `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`: downloaded into the cache folder once.
 *
 * A folder of such a name goes before the download.
 *
 * @returns the model, in evaluation mode, and its tokenizer
 * @throws {ConfigError} when there is nothing of that name that can be read
 * @throws {CheckpointError} when what is there is damaged, or its tokenizer is of another model; when a download fails
 * @throws {DeviceError} when the weights do not fit into the device's memory
 * @example
 * ```ts ignore
 * const { model, tokenizer } = await loadPretrained("gpt2", { device: await createDevice("auto") });
 * ```
 */
export async function loadPretrained(path: string, options: PretrainedOptions): Promise<Pretrained> {
  const { load, vocabulary } = await find(path, options), { tokenizer: asked = vocabulary } = options;
  // The tokenizer first: it is small, and may be missing.
  const tokenizer = typeof asked === "object"
    ? asked
    : await (await import("../tokenizer/load.ts")).loadTokenizer(asked);
  const model = await load(), { vocabSize } = model.config;
  if (tokenizer.vocabSize <= vocabSize) return { model, tokenizer };
  model.dispose();
  throw new CheckpointError(
    `The tokenizer is not that of ${path}: it has ${tokenizer.vocabSize} tokens, and the model ${vocabSize}`,
  );
}

interface Found {
  load(): Promise<GPT>;
  /** As `loadTokenizer` takes it. */
  readonly vocabulary: string;
}

async function find(path: string, options: PretrainedOptions): Promise<Found> {
  const file = (name: string) => `${path}/${name}`;
  if (await exists(file("run.json"))) return { load: () => loadRun(path, options), vocabulary: path };
  if (await exists(file("config.json"))) return { load: () => loadFolder(path, options), vocabulary: path };
  if (path.endsWith(".pt") && await exists(path)) return await nanoGPT(path, options);
  if (await exists(file("ckpt.pt"))) return await nanoGPT(file("ckpt.pt"), options);
  const { downloadModel, HUB_MODELS, isHubModel } = await import("./hub.ts");
  if (isHubModel(path)) {
    const folder = await downloadModel(path, { onProgress: options.onProgress });
    return { load: () => loadFolder(folder, options), vocabulary: folder };
  }
  throw new ConfigError(
    `No model ${
      JSON.stringify(path)
    }: expected a run folder, with run.json, a Hugging Face folder, with config.json, ` +
      `nanoGPT's ckpt.pt, or one of ${HUB_MODELS.join(", ")}`,
  );
}

async function loadRun(path: string, options: PretrainedOptions): Promise<GPT> {
  const { RunFolder } = await import("../checkpoint/run_folder.ts");
  const { loadTensors } = await import("../checkpoint/tensors.ts");
  const run = await RunFolder.open(path);
  const fill = (model: GPT) => run.read("best", (saved) => loadTensors(saved.model, model.namedParameters()));
  return await filled(run.description.model, options, fill);
}

async function loadFolder(path: string, options: PretrainedOptions): Promise<GPT> {
  const { loadHuggingFace } = await import("../checkpoint/hugging_face.ts");
  return await loadHuggingFace(path, options);
}

async function nanoGPT(path: string, options: PretrainedOptions): Promise<Found> {
  const { NanoGPTFile } = await import("../checkpoint/nanogpt.ts");
  const load = async () => {
    using file = await NanoGPTFile.open(path);
    return await filled(file.config, options, (model) => file.load(model));
  };
  return { load, vocabulary: await nanoGPTVocabulary(path) };
}

/** The folder or the name of a ckpt.pt's tokenizer, where nanoGPT's sample.py looks: it does not hold one. */
export async function nanoGPTVocabulary(path: string): Promise<string> {
  const { NanoGPTFile } = await import("../checkpoint/nanogpt.ts");
  using file = await NanoGPTFile.open(path);
  const data = `data/${file.flags.dataset}`;
  return await exists(`${data}/meta.pkl`) || await exists(`${data}/meta.json`) ? data : "gpt2";
}

/** A model whose weights come from elsewhere; nothing where they do not come. */
async function filled(
  config: Partial<GPTConfig>,
  { device, weights, dropout = config.dropout }: PretrainedOptions,
  fill: (model: GPT) => Promise<void>,
): Promise<GPT> {
  const model = new GPT({ ...config, dropout }, { device, weights, initialize: false });
  try {
    await fill(model);
    return model.eval();
  } catch (error) {
    model.dispose();
    throw error;
  }
}
