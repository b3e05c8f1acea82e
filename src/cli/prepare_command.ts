/** `deno task prepare`: encodes a text file to `train.bin` and `val.bin`, like nanoGPT's `data/NAME/prepare.py`. */
import { prepare, type PrepareProgress } from "../data/prepare.ts";
import { ConfigError } from "../errors.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { command, taskCommand } from "./command.ts";
import { int, text } from "./flags.ts";
import { count, duration, type Progress, share } from "./progress.ts";
import { encodeOptions, tokenizerFlags } from "./shared_flags.ts";

export const prepareFlags = {
  input: text("", "the text file (UTF-8), which may be larger than memory"),
  out_dir: text("", "the folder to write to, such as data/mine; train reads it with --dataset=mine"),
  ...tokenizerFlags,
  tokenizer: { ...tokenizerFlags.tokenizer, help: `character, ${tokenizerFlags.tokenizer.help}` },
  threads: int(0, "worker threads that encode; 0: one for each core", { min: 0, max: 256 }),
};

export const prepareCommand = command({
  name: "prepare",
  flags: prepareFlags,
  help: {
    does:
      "Encodes a text as tokens to train on: the first nine tenths of its characters to train.bin, the rest to val.bin.",
    usage: "--input=FILE --out_dir=FOLDER",
  },
  resumable: true,
  async run({ values, args, progress, interruption }) {
    const { input, out_dir: outDir } = values;
    for (const [name, value] of Object.entries({ input, out_dir: outDir })) {
      if (!value) throw new ConfigError(`--${name} is missing: prepare needs --input=FILE and --out_dir=FOLDER`);
    }
    const tokenizer = values.tokenizer === "character" ? values.tokenizer : await loadTokenizer(values.tokenizer);
    const began = performance.now(), signal = interruption(() => progress.line("Stopping …"));
    const special = encodeOptions(values.special_tokens), threads = values.threads || undefined;
    const steps = prepare({ input, outDir, tokenizer, threads, signal, ...special });
    let step;
    for (step = await steps.next(); !step.done; step = await steps.next()) report(progress, step.value, began);
    if (!step.value) {
      return progress.line(`Stopped. To continue, run the same command again:\n  ${taskCommand("prepare", args)}`);
    }
    const { train, val, vocabSize, type } = step.value;
    progress.line(`train has ${count(train)} tokens, val has ${count(val)} tokens`);
    const note = type === "uint16" ? "" : ", which nanoGPT's own train.py cannot read";
    progress.line(`vocab size: ${count(vocabSize)}, ${type}${note}`);
    progress.line(`Done: ${duration((performance.now() - began) / 1000)}, in ${outDir}`);
  },
});

/** Seconds between two lines if the output is not a terminal. */
const LINE_INTERVAL = 10;
let line = LINE_INTERVAL;

function report(progress: Progress, { doing, done, total, before }: PrepareProgress, began: number): void {
  const seconds = (performance.now() - began) / 1000, left = seconds * (total - done) / Math.max(1, done - before);
  const text = ` ${doing} ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB, ${duration(left)} left`;
  progress.status((columns) => share(done / total, text, columns));
  if (progress.terminal || seconds < line) return;
  progress.line(text.trimStart());
  line = seconds + LINE_INTERVAL;
}
