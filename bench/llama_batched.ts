/** Answers for llama.cpp: its llama-batched-bench, whose path and threads are the arguments, on the GGUF of a request. */
import { answer } from "./answer.ts";
import type { RowsRequest } from "./measures.ts";

const [binary, threads] = Deno.args;

/** As a line of its output has them. */
interface Figures {
  /** Tokens that each text got, texts, and seconds that these tokens took together. */
  readonly tg: number;
  readonly pl: number;
  readonly t_tg: number;
}

await answer<RowsRequest>("llama.cpp", ({ gguf, rows, prompt, tokens }) => async () => {
  // It can end before its last lines are written: so it measures three times, and one or two are enough.
  const npl = [rows, rows, rows], c = rows * (prompt + tokens);
  const given = Object.entries({ m: gguf, npp: prompt, ntg: tokens, npl, c, t: threads, tb: threads })
    .flatMap(([name, value]) => [`-${name}`, `${value}`]);
  const { success, stdout, stderr } = await new Deno.Command(binary, { args: [...given, "--output-format", "jsonl"] })
    .output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim().split("\n"));
  const figures: Figures[] = text.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  if (figures.length === 0) throw new Error(success ? "it has printed no figures" : errors.at(-1));
  const sum = (of: (figures: Figures) => number) => figures.reduce((sum, each) => sum + of(each), 0);
  return sum(({ tg, pl }) => tg * pl) / sum((each) => each.t_tg);
});
