/** `deno task tokenize`: text to token ids, and back. */
import { readText } from "../data/load_text.ts";
import { ConfigError, DataError } from "../errors.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { runCommand } from "./command.ts";
import { describeFlags, fallbacks, parseCommandLine, text, toggle } from "./flags.ts";
import { encodeOptions, tokenizerFlags } from "./tokenizer_flags.ts";

export const tokenizeFlags = {
  text: text("", "the text to encode; FILE:path reads it from a file"),
  ids: text("", "instead of a text, ids to decode, with spaces or commas between; FILE:path reads them from a file"),
  count: toggle("print only how many tokens the text has"),
  ...tokenizerFlags,
};

export async function tokenize(args: string[]): Promise<number> {
  const { given, words, help } = parseCommandLine(tokenizeFlags, args);
  const values = { ...fallbacks(tokenizeFlags), ...given };
  if (help) {
    console.log(`Shows the token ids of a text, or the text of ids.

  deno task tokenize --text=TEXT [--flag=value …]

Flags, with the values that hold where they are not given:

${describeFlags(tokenizeFlags, values)}`);
    return 0;
  }
  if (words.length > 0) throw new ConfigError(`${words[0]}: flags are written --name=value`);
  if ((given.text === undefined) === (given.ids === undefined)) {
    throw new ConfigError("tokenize takes either --text=TEXT or --ids=IDS");
  }
  const tokenizer = await loadTokenizer(values.tokenizer);
  if (given.ids !== undefined) console.log(tokenizer.decode(parseIds(await contents(values.ids))));
  else {
    const ids = tokenizer.encode(await contents(values.text), encodeOptions(values.special_tokens));
    console.log(values.count ? String(ids.length) : ids.join(" "));
  }
  return 0;
}

async function contents(value: string): Promise<string> {
  return value.startsWith("FILE:") ? await readText(value.slice("FILE:".length)) : value;
}

/** @throws {DataError} naming what is no id */
function parseIds(text: string): number[] {
  return text.split(/[\s,]+/).filter(Boolean).map((word) => {
    if (/^\d+$/.test(word)) return Number(word);
    throw new DataError(`${JSON.stringify(word)} is no token id: expected whole numbers with spaces or commas between`);
  });
}

if (import.meta.main) await runCommand(tokenize);
