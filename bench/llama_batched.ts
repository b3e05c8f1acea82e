/**
 * Measures llama.cpp, for bench/rows.ts: runs llama-batched-bench on the GGUF file of a request. The arguments are the
 * path of llama-batched-bench and the number of threads.
 */
import { answer } from "./answer.ts";
import type { RowsRequest } from "./measures.ts";

const [binary, threads] = Deno.args;

/** Fields of a line that llama-batched-bench prints. */
interface Figures {
  /** `tg`: generated tokens per text; `pl`: number of texts; `t_tg`: seconds for generating all tokens of all texts. */
  readonly tg: number;
  readonly pl: number;
  readonly t_tg: number;
}

await answer<RowsRequest>("llama.cpp", ({ gguf, rows, prompt, tokens }) => async () => {
  // llama-batched-bench may exit before its last lines are written. So it is asked for three measurements; one or two
  // lines are enough.
  const npl = [rows, rows, rows], c = rows * (prompt + tokens);
  const given = Object.entries({ m: gguf, npp: prompt, ntg: tokens, npl, c, t: threads, tb: threads })
    .flatMap(([name, value]) => [`-${name}`, `${value}`]);
  const { success, stdout, stderr } = await new Deno.Command(binary, { args: [...given, "--output-format", "jsonl"] })
    .output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim().split("\n"));
  const figures: Figures[] = text.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  if (figures.length === 0) throw new Error(success ? "llama-batched-bench printed no figures" : errors.at(-1));
  const sum = (of: (figures: Figures) => number) => figures.reduce((sum, each) => sum + of(each), 0);
  return sum(({ tg, pl }) => tg * pl) / sum((each) => each.t_tg);
});
