/**
 * `deno task sample`, nanoGPT's sample.py. Writes the text to standard output token by token, and everything else to
 * standard error.
 */
import { ConfigError, DataError } from "../errors.ts";
import { loadRun, runTokenizer } from "../pretrained/load.ts";
import { Profile } from "../engine/profile.ts";
import { RandomGenerator } from "../random/mod.ts";
import { generateSequences } from "../generate/generate.ts";
import { beginning, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { command } from "./command.ts";
import { write } from "./progress.ts";
import { loadNamed, openDevice, openRun } from "./run_model.ts";
import { generationOptions, sampleDeclaration } from "./sample_flags.ts";
import { checkPermission } from "./shared_flags.ts";

export const sample = command({
  ...sampleDeclaration,
  output: Deno.stderr, // only the text goes to standard output
  async run({ values, config, given, progress }) {
    checkPermission(values.device, "sample");
    const start = given.start ?? config.start;
    const generator = new RandomGenerator(values.seed),
      resumes = values.init_from === "resume" && values.weights === "f32" && !values.tokenizer && !values.adapter;
    // The run and the prompt are checked before a device is made.
    const run = resumes ? await openRun(values.out_dir) : undefined, vocabulary = run && await runTokenizer(run);
    const known = vocabulary && await readPrompt(start, vocabulary);
    const device = await openDevice(values);
    if (values.profile) device.profile = new Profile();
    const { model, tokenizer } = run
      ? {
        model: await loadRun(run, { device, generator, inference: true, checkpoint: values.checkpoint }),
        tokenizer: vocabulary!,
      }
      : await loadNamed(values, device, progress);
    progress.end(); // before the text begins
    const prompt = known ?? await readPrompt(start, tokenizer);
    const options = { ...generationOptions(values), generator, tokenizer }, begin = tokenizer.decode(prompt);
    write(Deno.stdout, begin);
    const prompts = new Array<Int32Array>(values.num_samples).fill(prompt);
    for await (const { text, finishReason, sequence } of generateSequences(model, prompts, options)) {
      write(Deno.stdout, text!);
      if (!finishReason) continue;
      write(Deno.stdout, "\n---------------\n");
      if (sequence + 1 < prompts.length) write(Deno.stdout, begin);
    }
    if (device.profile) progress.line(`\n${device.profile.table()}`);
    device.close();
  },
});

/**
 * The tokens of a prompt, or of the file that `FILE:path` names. An empty prompt becomes `<|endoftext|>`, which comes
 * before every text that GPT-2 was trained on.
 */
async function readPrompt(
  start: string | undefined,
  tokenizer: Tokenizer & { readonly specialTokens?: ReadonlyMap<string, number> },
): Promise<Int32Array> {
  if (start === undefined) return beginning(tokenizer);
  const end = tokenizer.specialTokens?.get("<|endoftext|>");
  if (start === "" && end === undefined) {
    throw new ConfigError(
      "--start is empty, and this model has no <|endoftext|> to begin with: leave the flag out, or pass a text",
    );
  }
  if (start === "") return Int32Array.of(end!);
  const path = start.startsWith("FILE:") ? start.slice("FILE:".length) : undefined;
  // Imported only if a file is read: most of that module is about training.
  const text = path === undefined ? start : await (await import("../data/load_text.ts")).readText(path);
  try {
    return tokenizer.encode(text, { allowedSpecial: "all" }); // as in nanoGPT's sample.py, <|endoftext|> is one token
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`The model's tokenizer cannot encode --start. ${error.message}`);
  }
}
