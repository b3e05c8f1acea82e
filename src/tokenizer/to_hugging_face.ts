/** Converts tokenizers to the files of Hugging Face's libraries. */
import { ConfigError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { bytesInLetters } from "./byte_letters.ts";
import { BytePairTokenizer } from "./byte_pair.ts";
import { CharacterTokenizer } from "./character.ts";
import { mergePairs } from "./merge.ts";
import { R50K } from "./patterns.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { AddedToken } from "./vocab_and_merges.ts";

const END = "<|endoftext|>";

/** Contents of a tokenizer's files, by name. */
export interface HuggingFaceTokenizer {
  /** The vocabulary. */ readonly "tokenizer.json": Readonly<Record<string, unknown>>;
  /** Settings for transformers. */ readonly "tokenizer_config.json": Readonly<Record<string, unknown>>;
  /** The chat template, if the tokenizer has one. */ readonly "chat_template.jinja"?: string;
}

/**
 * Converts a tokenizer to files from which `AutoTokenizer.from_pretrained` makes a tokenizer with the same ids.
 * Supported are character tokenizers and byte pairs with GPT-2's pattern. A character outside the vocabulary is an error
 * in transformers, too.
 *
 * @throws {ConfigError} when the tokenizer is of another kind
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { CharacterTokenizer, toHuggingFaceTokenizer } from "@nanogpt/ts/tokenizer";
 *
 * const files = toHuggingFaceTokenizer(CharacterTokenizer.fromText("hello"));
 * assertEquals(Object.keys(files), ["tokenizer.json", "tokenizer_config.json"]);
 * ```
 */
export function toHuggingFaceTokenizer(tokenizer: Tokenizer): HuggingFaceTokenizer {
  if (tokenizer instanceof CharacterTokenizer) {
    return files(characterParts(tokenizer), tokenizer, list(tokenizer.specialTokens, true));
  }
  if (tokenizer instanceof BytePairTokenizer && tokenizer.tables.pattern === R50K) {
    const added = [...list(tokenizer.specialTokens, true), ...list(tokenizer.addedTokens, false)];
    return files(bytePairParts(tokenizer), tokenizer, added.sort((a, b) => a.id - b.id));
  }
  throw new ConfigError(
    "Only tokenizers of characters or of byte pairs with GPT-2's pattern can be saved for transformers",
  );
}

function list(tokens: ReadonlyMap<string, number>, special: boolean): AddedToken[] {
  return Array.from(tokens, ([content, id]) => ({ id, content, special }));
}

/** The special tokens of a tokenizer by role. By default `<|endoftext|>` begins and ends a text, as in GPT-2. */
export function rolesOf(tokenizer: Tokenizer): Record<string, unknown> {
  const { special_tokens } = tokenizer.toJSON();
  if (isObject(special_tokens)) return special_tokens;
  return tokenizer.specialTokens?.has(END) ? { bos_token: END, eos_token: END, unk_token: END } : {};
}

/**
 * Ids of the tokens that end a text: the tokenizer's `eos_token`, which may end a chat turn, and `<|endoftext|>`. A
 * token that the tokenizer lacks is left out.
 */
export function endIds(tokenizer: Tokenizer): number[] {
  const tokens = new Set([rolesOf(tokenizer).eos_token, END]),
    { addedTokens } = tokenizer as Partial<BytePairTokenizer>;
  const ids = [...tokens].map((token) =>
    tokenizer.specialTokens?.get(token as string) ?? addedTokens?.get(token as string)
  );
  return ids.filter((id) => id !== undefined);
}

/** Ids of special tokens, by their names in config.json. */
export type SpecialIds = {
  readonly bos_token_id: number | null;
  readonly eos_token_id: number | null;
  readonly pad_token_id?: number;
};

/** Ids of the tokens that begin, end and pad a text. A missing id is null; a missing id for padding is left out. */
export function specialIds(tokenizer?: Tokenizer): SpecialIds {
  const own = tokenizer as Partial<BytePairTokenizer> | undefined, roles = tokenizer ? rolesOf(tokenizer) : {};
  const id = (role: unknown) =>
    own?.specialTokens?.get(role as string) ?? own?.addedTokens?.get(role as string) ?? null;
  const pad = id(roles.pad_token);
  return {
    bos_token_id: id(roles.bos_token ?? END),
    eos_token_id: id(roles.eos_token ?? END),
    ...(pad !== null && { pad_token_id: pad }),
  };
}

function files(
  parts: Record<string, unknown>,
  tokenizer: Tokenizer,
  added: readonly AddedToken[],
): HuggingFaceTokenizer {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const added_tokens = added.map(({ id, content, special }) => ({ id, content, ...flags, special }));
  const config = { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false };
  const { chat_template } = tokenizer.toJSON();
  return {
    "tokenizer.json": { version: "1.0", truncation: null, padding: null, added_tokens, normalizer: null, ...parts },
    "tokenizer_config.json": { ...config, ...rolesOf(tokenizer) },
    ...typeof chat_template === "string" && { "chat_template.jinja": chat_template },
  };
}

function bytePairParts(tokenizer: BytePairTokenizer): Record<string, unknown> {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const none = { dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null };
  return {
    pre_tokenizer: byteLevel,
    post_processor: byteLevel,
    decoder: byteLevel,
    model: {
      ...{ type: "BPE", ...none, fuse_unk: false, byte_fallback: false, ignore_merges: false },
      ...vocabularyAndMerges(tokenizer),
    },
  };
}

/**
 * The vocabulary in GPT-2's letters, and the merges, each as two tokens with a space between them. They are stored with
 * the tokenizer, or recovered from the bytes of an encoding's tokens.
 */
export function vocabularyAndMerges({ tables: { json, tokens, special } }: BytePairTokenizer) {
  const more = new Set((json.added_tokens as AddedToken[] | undefined)?.map(({ id }) => id)); // ids of tokens that were added to the encoding
  // A tokenizer without a stored vocabulary is an encoding, which has bytes for every id.
  const own = () => tokens.flatMap((bytes, id) => more.has(id) ? [] : [[bytesInLetters(bytes!), id]]);
  const vocab = json.vocab ?? Object.fromEntries(own());
  const merges = json.merges ?? recoverMerges(tokens as readonly string[], new Set(special.values()));
  return { vocab, merges } as { vocab: Record<string, number>; merges: string[] };
}

/** Recovers the merge that creates each token: if its bytes are merged to earlier tokens only, the two sides remain. */
function recoverMerges(tokens: readonly string[], special: ReadonlySet<number>): string[] {
  const ids = new Map(tokens.map((bytes, id) => [bytes, id])), merges: string[] = [];
  tokens.forEach((bytes, id) => {
    if (bytes.length === 1 || special.has(id)) return;
    const [, middle] = mergePairs(bytes.length, (start, _, end) => {
      const rank = ids.get(bytes.slice(start, end));
      return rank !== undefined && rank < id ? rank : undefined;
    });
    merges.push(`${bytesInLetters(bytes.slice(0, middle))} ${bytesInLetters(bytes.slice(middle))}`);
  });
  return merges;
}

/** A pre-tokenizer that cuts a text into characters. */
export const SPLIT = { type: "Split", pattern: { Regex: String.raw`[\s\S]` }, behavior: "Isolated", invert: false };

/**
 * A character tokenizer as a word-level model of tokenizer.json. A character outside the vocabulary is an error, because
 * the vocabulary has no `<unk>`.
 */
function characterParts({ characters }: CharacterTokenizer): Record<string, unknown> {
  const vocab = Object.fromEntries(characters.map((character, id) => [character, id]));
  return {
    pre_tokenizer: SPLIT,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
  };
}
