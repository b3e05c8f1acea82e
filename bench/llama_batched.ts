/** Answers for llama.cpp: its llama-batched-bench, whose path and threads are the arguments, on the GGUF of a request. */
import { answer } from "./answer.ts";
import type { RowsRequest } from "./measures.ts";

const [binary, threads] = Deno.args;

await answer<RowsRequest>("llama.cpp", ({ gguf, rows, prompt, tokens }) => async () => {
  const options = { npp: prompt, ntg: tokens, npl: rows, c: rows * (prompt + tokens), t: threads, tb: threads };
  const given = Object.entries(options).flatMap(([name, value]) => [`-${name}`, `${value}`]);
  const { stdout, stderr } = await new Deno.Command(binary, {
    args: ["-m", gguf!, ...given, "--output-format", "jsonl"],
  }).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  const line = text.split("\n").find((line) => line.startsWith("{"));
  if (!line) throw new Error(errors.trim().split("\n").at(-1) || "it has printed no figures");
  return JSON.parse(line).speed_tg;
});
