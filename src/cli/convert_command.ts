/** `deno task convert`: a model from one program's format into another's. */
import { loadHuggingFace } from "../checkpoint/hugging_face.ts";
import { saveHuggingFace } from "../checkpoint/hugging_face_save.ts";
import { NanoGPTFile } from "../checkpoint/nanogpt.ts";
import { nanoGPTToRun, runToNanoGPT } from "../checkpoint/nanogpt_run.ts";
import { saveNanoGPT } from "../checkpoint/nanogpt_save.ts";
import { createDevice } from "../device/create.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { findModel, type FoundModel, loadPretrained, nanoGPTVocabulary } from "../pretrained/load.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { command, taskCommand } from "./command.ts";
import { choice, float, text, type Values } from "./flags.ts";
import { PRETRAINED, reportDownload } from "./shared_flags.ts";

export const convertFlags = {
  format: choice(
    ["auto", "nanogpt", "run", "hugging_face"],
    "of TO; auto: NAME.pt is nanoGPT's, out of a ckpt.pt comes a run, else it is a Hugging Face folder",
  ),
  checkpoint: choice(["auto", "best", "last"], "of a run; auto: the last into a ckpt.pt, else the best"),
  dtype: choice(["float32", "float16", "bfloat16"], "of the weights in a Hugging Face folder"),
  max_shard_gb: float(50, "gigabytes of weights from which on a Hugging Face folder has several files", { min: 1e-6 }),
  tokenizer: text("", "of a ckpt.pt, which holds none: gpt2, or a folder with meta.pkl; else data/DATASET's, or gpt2"),
};
type ConvertValues = Values<typeof convertFlags>;

const TYPES = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

export const convert = command({
  name: "convert",
  flags: convertFlags,
  words: { takes: "two names, FROM and TO", example: ["out", "out/ckpt.pt"] },
  help: {
    does: "Turns a model into another program's format. FROM stays as it is; TO must not be there, but for a ckpt.pt.",
    usage: "FROM TO",
    notes: `FROM is ${PRETRAINED}. Between a run and a ckpt.pt the optimizer's
state and the iteration come along. `,
  },
  async run({ values, given, words: [from, to], progress }) {
    const onNote = (line: string) => progress.line(line);
    const source = await findModel(from, { onProgress: reportDownload(progress) });
    const format = formatOf(values.format, source, to);
    checkGiven(given, source, format);
    const options: Options = {
      ...values,
      checkpoint: values.checkpoint === "auto" ? undefined : values.checkpoint,
      onNote,
    };
    if (format === "run") await toRun(source, to, options);
    else if (format === "nanogpt" && source.kind === "run") await runToNanoGPT(from, to, options);
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
  return to.endsWith(".pt") ? "nanogpt" : kind === "nanogpt" ? "run" : "hugging_face";
}

/** @throws {ConfigError} for a flag that says nothing of this conversion */
function checkGiven(given: Partial<ConvertValues>, { kind }: FoundModel, format: Format): void {
  const refuse = (name: keyof ConvertValues, why: string) => new ConfigError(`--${name}=${given[name]}: ${why}`);
  for (const name of ["dtype", "max_shard_gb"] as const) {
    if (given[name] !== undefined && format !== "hugging_face") {
      throw refuse(name, "this is for a Hugging Face folder alone");
    }
  }
  if (given.checkpoint !== undefined && kind !== "run") throw refuse("checkpoint", "FROM is not a run");
  if (given.tokenizer && format === "nanogpt") throw refuse("tokenizer", "a ckpt.pt holds no tokenizer");
}

/** From file to file, with the optimizer's state. */
async function toRun({ kind, path }: FoundModel, to: string, { tokenizer: named, onNote }: Options): Promise<void> {
  if (kind !== "nanogpt") {
    const instead = taskCommand("train", ["--init_from=FROM", `--out_dir=${to}`]);
    throw new ConfigError(
      `Only a ckpt.pt becomes a run: it alone has an optimizer's state\nThis begins one: ${instead}`,
    );
  }
  using file = await NanoGPTFile.open(path, { onNote });
  const { flags: { dataset }, config: { vocabSize } } = file, { vocabulary, hint } = await nanoGPTVocabulary(dataset);
  const tokenizer = await loadTokenizer(named || vocabulary);
  if (tokenizer.vocabSize > vocabSize) {
    const sizes = `it has ${tokenizer.vocabSize} tokens, and the model ${vocabSize}`;
    throw new CheckpointError(
      `The tokenizer ${named || vocabulary} is not that of ${path}: ${sizes}${named ? "" : hint}`,
    );
  }
  await nanoGPTToRun(file, to, { vocabulary: tokenizer.toJSON(), onNote });
}

/** Into the CPU device's memory and out of it: weights alone. */
async function throughModel(
  { kind, path }: FoundModel,
  to: string,
  { format, dtype, max_shard_gb, tokenizer: named, checkpoint, onNote }: Options & { format: Format },
): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  // A folder may have no vocabulary; what it has is copied as it is.
  const folder = kind === "hugging_face" && !named ? path : undefined;
  const { model, tokenizer } = folder !== undefined
    ? { model: await loadHuggingFace(folder, { device, onNote }), tokenizer: undefined }
    : await loadPretrained(path, { device, tokenizer: named || undefined, checkpoint, onNote });
  if (format === "nanogpt") {
    if (model.config.activation !== "gelu") onNote(`${path} has tanh's GELU, and nanoGPT computes the exact one`);
    await saveNanoGPT(to, model, { iter: 0, bestValLoss: null });
  } else {
    const maxShardSize = max_shard_gb * 1e9;
    await saveHuggingFace(model, to, { dtype: TYPES[dtype], maxShardSize, vocabularyFrom: folder, tokenizer });
  }
}
