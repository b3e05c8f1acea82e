/** `deno task convert`: converts a model from one program's format to another's. */
import { GgufModel } from "../checkpoint/gguf.ts";
import { saveGguf, type SaveGgufOptions } from "../checkpoint/gguf_save.ts";
import { saveHuggingFace } from "../checkpoint/hugging_face_save.ts";
import { NanoGPTFile } from "../checkpoint/nanogpt.ts";
import { RunFolder } from "../checkpoint/run_folder.ts";
import { nanoGPTToRun, runToNanoGPT } from "../checkpoint/nanogpt_run.ts";
import { loadModel } from "../checkpoint/tensors.ts";
import { saveNanoGPT } from "../checkpoint/nanogpt_save.ts";
import { createDevice } from "../device/create.ts";
import type { Device } from "../engine/device.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { noGrad } from "../engine/autograd.ts";
import { loadAdapter } from "../finetune/adapter.ts";
import { adaptersOf } from "../finetune/lora.ts";
import { type HeadDescription, newHead } from "../finetune/head_description.ts";
import { generate } from "../generate/generate.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { softmax } from "../ops/softmax.ts";
import { findModel, type FoundModel, loadPretrained, nanoGPTVocabulary } from "../pretrained/load.ts";
import { loadFolder, loadWithHead, type PretrainedHead, savedHead } from "../pretrained/load_head.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { beginning } from "../tokenizer/tokenizer.ts";
import { command, taskCommand } from "./command.ts";
import { choice, float, text, type Values } from "./flags.ts";
import { modelCard } from "./model_card.ts";
import { PRETRAINED, reportDownload } from "./shared_flags.ts";

export const convertFlags = {
  format: choice(
    ["auto", "nanogpt", "run", "hugging_face", "gguf"],
    "format of TO; auto: nanogpt for NAME.pt, gguf for NAME.gguf, run if FROM is a ckpt.pt, else hugging_face (a folder)",
  ),
  adapter: text(
    "",
    "a folder with a LoRA adapter for FROM to merge into the weights; a run's own adapter is always merged",
  ),
  checkpoint: choice(
    ["auto", "best", "last"],
    "which checkpoint of a run; auto: the last if TO is a ckpt.pt, else the best",
  ),
  dtype: choice(
    ["float32", "float16", "bfloat16", "q8_0", "f32", "f16", "bf16"],
    "type of the weights in a Hugging Face folder or a GGUF file: float32, float16, bfloat16, or in a GGUF file q8_0 (eight bits)",
  ),
  max_shard_gb: float(50, "maximum size of a file of weights in a Hugging Face folder, in gigabytes", { min: 1e-6 }),
  tokenizer: text(
    "",
    "tokenizer for a ckpt.pt, which stores none: gpt2, or a folder with meta.pkl; default: meta.pkl of its dataset in data/, else gpt2",
  ),
};
type ConvertValues = Values<typeof convertFlags>;

const TYPES = { float32: "F32", float16: "F16", bfloat16: "BF16", f32: "F32", f16: "F16", bf16: "BF16" } as const;

export const convert = command({
  name: "convert",
  flags: convertFlags,
  words: { takes: "two names, FROM and TO", example: ["out", "out/ckpt.pt"] },
  help: {
    does:
      "Converts a model to another program's format. FROM is not changed. If TO is a folder, it must be new or empty.\n" +
      "If TO is a file that exists, it is replaced.",
    usage: "FROM TO",
    notes: `FROM is ${PRETRAINED}.
Between a run and a ckpt.pt, the optimizer's state and the iteration are converted too. A Hugging Face folder gets a model card
(README.md): FROM's card if FROM is a Hugging Face folder with a card and no adapter is merged, else a new card.

`,
  },
  async run({ values, given, words: [from, to], progress }) {
    const onNote = (line: string) => progress.line(line);
    const source = await findModel(from, { onProgress: reportDownload(progress) });
    const format = formatOf(values.format, source, to);
    const adapted = values.adapter !== "" ||
      source.kind === "run" && (await RunFolder.open(source.path)).description.base;
    checkGiven(given, source, format);
    const options: Options = {
      ...values,
      checkpoint: values.checkpoint === "auto" ? undefined : values.checkpoint,
      onNote,
    };
    if (format === "run") await toRun(source, to, options);
    else if (format === "nanogpt" && source.kind === "run" && !adapted) await runToNanoGPT(from, to, options);
    else await throughModel(source, to, { ...options, format });
    progress.line(`${from} → ${to}`);
  },
});

interface Options extends Omit<ConvertValues, "checkpoint"> {
  readonly checkpoint: "best" | "last" | undefined;
  readonly onNote: (line: string) => void;
}
type Format = Exclude<ConvertValues["format"], "auto">;

function formatOf(asked: ConvertValues["format"], { kind }: FoundModel, to: string): Format {
  if (asked !== "auto") return asked;
  if (to.endsWith(".gguf")) return "gguf";
  return to.endsWith(".pt") ? "nanogpt" : kind === "nanogpt" ? "run" : "hugging_face";
}

/** Checks the given flags. @throws {ConfigError} for a flag that does not apply to this conversion */
function checkGiven(given: Partial<ConvertValues>, { kind }: FoundModel, format: Format): void {
  const refuse = (name: keyof ConvertValues, why: string) => new ConfigError(`--${name}=${given[name]}: ${why}`);
  const folder = format === "hugging_face", weights = folder || format === "gguf";
  if (given.dtype && !weights) throw refuse("dtype", "this is only for a Hugging Face folder or a GGUF file");
  if (given.dtype === "q8_0" && folder) {
    throw refuse("dtype", "only a GGUF file (NAME.gguf) can have weights in eight bits");
  }
  if (given.max_shard_gb && !folder) throw refuse("max_shard_gb", "this is only for a Hugging Face folder");
  if (given.checkpoint !== undefined && kind !== "run") throw refuse("checkpoint", "FROM is not a run");
  if (given.adapter && format === "run") {
    throw refuse("adapter", "a run has an optimizer's state, which would not fit the merged weights");
  }
  if (given.tokenizer && format === "nanogpt") throw refuse("tokenizer", "a ckpt.pt does not store a tokenizer");
}

/** Converts a ckpt.pt to a run, with the optimizer's state. */
async function toRun({ kind, path }: FoundModel, to: string, { tokenizer: named, onNote }: Options): Promise<void> {
  if (kind !== "nanogpt") {
    const instead = taskCommand("train", ["--init_from=FROM", `--out_dir=${to}`]);
    throw new ConfigError(
      `Only a ckpt.pt can be converted to a run, which needs an optimizer's state\nThis begins a run: ${instead}`,
    );
  }
  using file = await NanoGPTFile.open(path, { onNote });
  const { flags: { dataset }, config: { vocabSize } } = file, { vocabulary, hint } = await nanoGPTVocabulary(dataset);
  const tokenizer = await loadTokenizer(named || vocabulary);
  if (tokenizer.vocabSize > vocabSize) {
    const sizes = `it has ${tokenizer.vocabSize} tokens, and the model ${vocabSize}`;
    throw new CheckpointError(
      `The tokenizer ${named || vocabulary} does not belong to ${path}: ${sizes}${named ? "" : hint}`,
    );
  }
  await nanoGPTToRun(file, to, { vocabulary: tokenizer.toJSON(), onNote });
}

/** Converts the weights alone: loads the model to the CPU device and saves it from there. */
async function throughModel(
  { kind, path }: FoundModel,
  to: string,
  { format, dtype, max_shard_gb, tokenizer: named, checkpoint, adapter, onNote }: Options & { format: Format },
): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  // The vocabulary files of a Hugging Face folder, if it has any, are copied as they are. A GGUF file needs a
  // tokenizer.
  const folder = kind === "hugging_face" && !named && format !== "gguf" ? path : undefined;
  const loaded = await loadForSaving({ kind, path }, { device, named, checkpoint, folder, onNote });
  const { model, tokenizer, head, description } = loaded;
  if (adapter) await loadAdapter(adapter, model, { head, onNote });
  for (const lora of adaptersOf(model)) lora.merge();
  if (head && format !== "hugging_face") onNote(`${path} has a head, which ${to} cannot store: the head is left out`);
  if (format === "nanogpt") {
    if (model.config.activation !== "gelu") {
      onNote(`${path} uses GELU's tanh approximation, and nanoGPT the exact GELU`);
    }
    await saveNanoGPT(to, model, { iter: 0, bestValLoss: null });
  } else if (format === "gguf") {
    await toGguf(model, to, { tokenizer: tokenizer!, dtype: dtype === "q8_0" ? "Q8_0" : TYPES[dtype], onNote });
  } else {
    const type = dtype === "q8_0" ? undefined : TYPES[dtype], maxShardSize = max_shard_gb * 1e9;
    const saved = head && description && savedHead(head, description);
    const card = await modelCard({ kind, path }, {
      ...{ to, model, checkpoint, adapter, architecture: saved?.architecture },
      rounded: dtype === "float32" || dtype === "f32" ? undefined : dtype,
    });
    await saveHuggingFace(model, to, {
      dtype: type,
      maxShardSize,
      vocabularyFrom: folder,
      tokenizer,
      head: saved,
      card,
    });
  }
}

/**
 * Loads a model with its head, and with its tokenizer unless `folder` names a folder whose vocabulary will be copied.
 */
async function loadForSaving(
  { kind, path }: FoundModel,
  { device, named, checkpoint, folder, onNote }: Pick<Options, "checkpoint" | "onNote"> & {
    readonly device: Device;
    readonly named: string;
    readonly folder: string | undefined;
  },
): Promise<Partial<PretrainedHead> & { model: GPT }> {
  if (folder !== undefined) {
    let found: Partial<PretrainedHead> = {};
    const keep = (model: GPT, description: HeadDescription) => {
      const head = newHead(model, description, { initialize: false });
      found = { head, description };
      return head;
    };
    return { model: await loadFolder(folder, { device, onNote }, keep), ...found };
  }
  const options = { device, tokenizer: named || undefined, checkpoint, onNote };
  return kind === "run" && !named ? await loadWithHead(path, options) : await loadPretrained(path, options);
}

/** Number of tokens on which the exact GELU and its approximation are compared. */
const JUDGED = 64;

/**
 * Writes a GGUF file. Programs that read GGUF files use GELU's tanh approximation. If the model uses the exact GELU,
 * this function therefore measures by how much the approximation changes probabilities, passes that to `onNote`, and
 * disposes of the model.
 */
async function toGguf(model: GPT, to: string, options: SaveGgufOptions & { onNote: Options["onNote"] }): Promise<void> {
  const { config, device } = model, { tokenizer, onNote } = options;
  if (config.activation !== "gelu") return await saveGguf(to, model, options);
  const prompt = beginning(tokenizer), tokens = [...prompt], maxNewTokens = Math.min(JUDGED, config.blockSize) - 1;
  if (maxNewTokens > 0) { for await (const token of generate(model, prompt, { maxNewTokens })) tokens.push(token); }
  const own = await probabilities(model, tokens);
  await saveGguf(to, model, options);
  model.dispose(); // makes room for the model in the file
  using file = await GgufModel.open(to);
  const theirs = await loadModel({ ...file.config, activation: "gelu_new" }, { device }, (model) => file.load(model));
  const read = await probabilities(theirs, tokens);
  let worst = 0;
  for (let i = 0; i < own.length; i++) worst = Math.max(worst, Math.abs(own[i] - read[i]));
  onNote(
    `${to}: this model uses the exact GELU, and programs that read GGUF use its tanh approximation: with weights in ` +
      `${options.dtype}, probabilities differ by up to ${
        worst.toExponential(1)
      } over ${tokens.length} generated tokens; nanogpt-ts itself reads the file with the exact GELU`,
  );
}

/** The probabilities of the next token at every position, (T, V). */
function probabilities(model: GPT, tokens: readonly number[]): Promise<NumberArray> {
  using _ = model.device.scope();
  const ids = model.device.tensor(Int32Array.from(tokens), [1, tokens.length], { dtype: "i32" });
  return noGrad(() => softmax(model.forward(ids, ids).logits)).data();
}
