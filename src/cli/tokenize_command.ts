/** `deno task tokenize`: encodes a text as token ids, or decodes ids. */
import { readText } from "../data/load_text.ts";
import { ConfigError, DataError } from "../errors.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { command } from "./command.ts";
import { text, toggle } from "./flags.ts";
import { print } from "./progress.ts";
import { encodeOptions, tokenizerFlags } from "./shared_flags.ts";

export const tokenizeFlags = {
  text: text("", "the text to encode; FILE:path reads it from a file"),
  ids: text("", "instead of text, ids to decode, separated by spaces or commas; FILE:path reads them from a file"),
  count: toggle("print only the number of tokens"),
  ...tokenizerFlags,
};

export const tokenize = command({
  name: "tokenize",
  flags: tokenizeFlags,
  help: { does: "Encodes a text as token ids, or decodes token ids to a text.", usage: "--text=TEXT" },
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

/** Parses ids. @throws {DataError} naming the word that is not a valid id */
function parseIds(text: string): number[] {
  return text.split(/[\s,]+/).filter(Boolean).map((word) => {
    if (/^\d+$/.test(word)) return Number(word);
    throw new DataError(
      `${JSON.stringify(word)} is not a token id: expected whole numbers separated by spaces or commas`,
    );
  });
}
