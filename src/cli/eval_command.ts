/**
 * `deno task eval`: measures a model's perplexity and bits per byte on a text, or the loss and accuracy of its head on
 * rows.
 */
import { readText } from "../data/load_text.ts";
import { ConfigError } from "../errors.ts";
import { evaluateText, type TextEvaluation } from "../evaluate/perplexity.ts";
import { Profile } from "../engine/profile.ts";
import { command } from "./command.ts";
import { int, text } from "./flags.ts";
import { count, duration, type Progress, rate, share } from "./progress.ts";
import { rowFlags } from "./row_flags.ts";
import { loadNamed, modelName, openDevice } from "./run_model.ts";
import { checkPermission, deviceFlags, encodeOptions, modelFlags, tokenizerFlags } from "./shared_flags.ts";

export const evalFlags = {
  ...modelFlags,
  input: text("", "a text file (UTF-8) to predict"),
  data: text(
    "",
    "instead of input, for a model with a head: a file of rows with labels or choices; for a reward model: pairs or rankings of answers",
  ),
  columns: rowFlags.columns,
  tokenizer: text("", "tokenizer to use instead of the model's: gpt2, cl100k_base, o200k_base, or a folder"),
  special_tokens: tokenizerFlags.special_tokens,
  max_length: int(0, "tokens in a window; 0: the model's block size", { min: 0 }),
  stride: int(
    0,
    "tokens that each window after the first predicts; the tokens before them are context; 0: half a window",
    { min: 0 },
  ),
  ...deviceFlags,
};

export const evalCommand = command({
  name: "eval",
  flags: evalFlags,
  help: {
    does: "Measures how well a model predicts a text: perplexity and bits per byte. Each token is predicted once.\n" +
      "With --data, measures the loss and accuracy of a model's head on rows with labels, choices or preferred answers.",
    usage: "(--input=FILE | --data=FILE)",
  },
  async run({ values, progress, interruption }) {
    const { input, data } = values;
    if (!input && !data) {
      throw new ConfigError(
        "--input is missing: eval needs a text (--input=FILE) or, for a model with a head, rows (--data=FILE)",
      );
    }
    if (input && data) {
      throw new ConfigError(`--input=${input} --data=${data}: eval takes a text or rows; leave one out`);
    }
    const idle = (["tokenizer", "max_length", "stride"] as const).find((name) => data && values[name]);
    if (idle) throw new ConfigError(`--${idle}=${values[idle]}: this is only for a text (--input), not for rows`);
    checkPermission(values.device, "eval");
    if (data) {
      const { evaluateHead } = await import("./eval_head.ts"); // a text needs neither heads nor readers of rows
      const device = await openDevice(values), signal = interruption(() => progress.line("Stopping …"));
      for (const line of await evaluateHead(values, device, { progress, signal })) progress.line(line);
      return device.close();
    }
    const contents = await readText(input), device = await openDevice(values);
    const { model, tokenizer } = await loadNamed(values, device, progress);
    if (values.profile) device.profile = new Profile();
    const { blockSize } = model.config, began = performance.now();
    const maxLength = values.max_length || blockSize, stride = values.stride || Math.max(1, maxLength >> 1);
    if (maxLength > blockSize) {
      throw new ConfigError(`--max_length=${maxLength}: expected at most the model's block size, ${blockSize}`);
    }
    if (stride > maxLength) {
      throw new ConfigError(`--stride=${stride}: expected at most the number of tokens in a window, ${maxLength}`);
    }
    const signal = interruption(() => progress.line("Stopping …"));
    progress.line(
      `model: ${modelName(values)}, ${(model.numParameters() / 1e6).toFixed(2)}M parameters, device: ${device.name}`,
    );
    progress.line(`windows of ${count(maxLength)} tokens, stride ${count(stride)}`);
    const onProgress = (done: number, total: number) => report(progress, done, total, began);
    const options = { tokenizer, maxLength, stride, signal, onProgress, ...encodeOptions(values.special_tokens) };
    const result = await evaluateText(model, contents, options);
    progress.end();
    const seconds = (performance.now() - began) / 1000;
    for (const line of table(result)) progress.line(line);
    progress.line(`Done: ${duration(seconds)}, ${rate(result.tokens / seconds)}`);
    if (device.profile) progress.line(`\n${device.profile.table()}`);
    device.close();
  },
});

/** The results, one line each. */
export function table(
  { perplexity, loss, bitsPerByte, tokens, bytes }: Omit<TextEvaluation, "transformersPerplexity">,
): string[] {
  const rows = [
    ["perplexity", perplexity.toFixed(4)],
    ["loss", `${loss.toFixed(4)} nats per token`],
    ["bits per byte", bitsPerByte.toFixed(4)],
    ["tokens scored", count(tokens)],
    ["bytes of text", count(bytes)],
  ];
  return rows.map(([name, value]) => `${name.padEnd(14)} ${value}`);
}

function report(progress: Progress, done: number, total: number, began: number): void {
  const seconds = (performance.now() - began) / 1000, left = seconds * (total - done) / done;
  const text = ` ${done}/${total}  ${rate(done / seconds)}  ${duration(left)} left`;
  progress.status((columns) => share(done / total, text, columns));
}
