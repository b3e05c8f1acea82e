/** `deno task tokenize`: text to token ids, and back. */
import { readText } from "../data/load_text.ts";
import { ConfigError, DataError } from "../errors.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { command } from "./command.ts";
import { text, toggle } from "./flags.ts";
import { print } from "./progress.ts";
import { encodeOptions, tokenizerFlags } from "./shared_flags.ts";

export const tokenizeFlags = {
  text: text("", "the text to encode; FILE:path reads it from a file"),
  ids: text("", "instead of a text, ids to decode, with spaces or commas between; FILE:path reads them from a file"),
  count: toggle("print only how many tokens the text has"),
  ...tokenizerFlags,
};

export const tokenize = command({
  name: "tokenize",
  flags: tokenizeFlags,
  help: { does: "Shows the token ids of a text, or the text of ids.", usage: "--text=TEXT" },
  async run({ values, given }) {
    if ((given.text === undefined) === (given.ids === undefined)) {
      throw new ConfigError("tokenize takes either --text=TEXT or --ids=IDS");
    }
    const tokenizer = await loadTokenizer(values.tokenizer);
    if (given.ids !== undefined) return print(tokenizer.decode(parseIds(await contents(values.ids))));
    const ids = tokenizer.encode(await contents(values.text), encodeOptions(values.special_tokens));
    print(values.count ? String(ids.length) : ids.join(" "));
  },
});

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
