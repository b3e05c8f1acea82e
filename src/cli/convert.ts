/** `deno task convert`: a model from one program's format into another's. */
import { exists } from "../files/files.ts";
import { Lock } from "../files/locks.ts";
import { downloadModel, isHubModel } from "../pretrained/hub.ts";
import { loadHuggingFace } from "../checkpoint/hugging_face.ts";
import { saveHuggingFace } from "../checkpoint/hugging_face_save.ts";
import { NanoGPTFile } from "../checkpoint/nanogpt.ts";
import { nanoGPTToRun, runToNanoGPT } from "../checkpoint/nanogpt_run.ts";
import { saveNanoGPT } from "../checkpoint/nanogpt_save.ts";
import { createDevice } from "../device/create.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { loadPretrained, nanoGPTVocabulary } from "../pretrained/load.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { command, runCommand, taskCommand } from "./command.ts";
import { choice, float, text, type Values } from "./flags.ts";
import type { Progress } from "./progress.ts";
import { PRETRAINED, reportDownload } from "./shared_flags.ts";

export const convertFlags = {
  format: choice(
    ["auto", "nanogpt", "run", "hugging_face"],
    "of TO; auto: NAME.pt is nanoGPT's, out of a ckpt.pt comes a run, else it is a Hugging Face folder",
  ),
  checkpoint: choice(["last", "best"], "of a run, into a ckpt.pt; a Hugging Face folder has the best"),
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
  async run({ values, words: [from, to], progress }) {
    const isRun = await exists(`${from}/run.json`);
    const checkpoint = from.endsWith(".pt") ? from : await exists(`${from}/ckpt.pt`) ? `${from}/ckpt.pt` : undefined;
    const format = values.format !== "auto"
      ? values.format
      : to.endsWith(".pt")
      ? "nanogpt"
      : checkpoint && !isRun
      ? "run"
      : "hugging_face";
    using _ = await Lock.take(to, { beside: true });
    if (format === "run") await toRun(isRun ? undefined : checkpoint, to, { ...values, progress });
    else if (format === "nanogpt" && isRun) await runToNanoGPT(from, to, values);
    else await throughModel(from, to, { ...values, format, progress });
    progress.line(`${from} → ${to}`);
  },
});

/** From file to file, with the optimizer's state. */
async function toRun(
  checkpoint: string | undefined,
  to: string,
  { tokenizer: named, progress }: ConvertValues & { progress: Progress },
): Promise<void> {
  if (!checkpoint) {
    const instead = taskCommand("train", ["--init_from=FROM", `--out_dir=${to}`]);
    throw new ConfigError(
      `Only a ckpt.pt becomes a run: it alone has an optimizer's state\nThis begins one: ${instead}`,
    );
  }
  const name = named || await nanoGPTVocabulary(checkpoint), tokenizer = await loadTokenizer(name);
  using file = await NanoGPTFile.open(checkpoint);
  const { vocabSize } = file.config;
  if (tokenizer.vocabSize > vocabSize) {
    throw new CheckpointError(
      `The tokenizer ${name} is not that of ${checkpoint}: it has ${tokenizer.vocabSize} tokens, and the model ${vocabSize}\n` +
        "A ckpt.pt holds none: name the folder with its meta.pkl by --tokenizer",
    );
  }
  await nanoGPTToRun(checkpoint, to, { vocabulary: tokenizer.toJSON(), onNote: (line) => progress.line(line) });
}

/** Into the CPU device's memory and out of it: weights alone. */
async function throughModel(
  from: string,
  to: string,
  { format, dtype, max_shard_gb, tokenizer: named, progress }: ConvertValues & { progress: Progress },
): Promise<void> {
  const device = await createDevice("cpu", { threads: 1 }), onNote = (line: string) => progress.line(line);
  try {
    const folder = await exists(`${from}/config.json`)
      ? from
      : isHubModel(from) && !await exists(from)
      ? await downloadModel(from, { onProgress: reportDownload(progress) })
      : undefined;
    // A folder may have no vocabulary; what it has is copied as it is.
    const { model, tokenizer } = folder !== undefined
      ? { model: await loadHuggingFace(folder, { device, onNote }), tokenizer: undefined }
      : await loadPretrained(from, { device, tokenizer: named || undefined, onNote });
    if (format === "nanogpt") {
      if (model.config.activation !== "gelu") onNote(`${from} has tanh's GELU, and nanoGPT computes the exact one`);
      await saveNanoGPT(to, model, { iter: 0, bestValLoss: null });
    } else {
      const maxShardSize = max_shard_gb * 1e9;
      await saveHuggingFace(model, to, { dtype: TYPES[dtype], maxShardSize, vocabularyFrom: folder, tokenizer });
    }
  } finally {
    device.close();
  }
}

if (import.meta.main) await runCommand(convert);
