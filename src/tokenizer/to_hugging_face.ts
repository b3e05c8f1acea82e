/** Tokenizers into the files that Hugging Face's libraries read. */
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

/** The contents of a tokenizer's files, by their names. */
export interface HuggingFaceTokenizer {
  /** The vocabulary. */ readonly "tokenizer.json": Readonly<Record<string, unknown>>;
  /** How transformers uses it. */ readonly "tokenizer_config.json": Readonly<Record<string, unknown>>;
  /** The template of chats, where the tokenizer has one. */ readonly "chat_template.jinja"?: string;
}

/**
 * The files with which `AutoTokenizer.from_pretrained` gives a text the same ids. Of `loadTokenizer`'s they are those with GPT-2's
 * pattern, and characters; a text with a character outside their vocabulary is an error there too.
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
    "Only tokenizers of characters, and byte pairs with GPT-2's pattern, can be saved for transformers",
  );
}

function list(tokens: ReadonlyMap<string, number>, special: boolean): AddedToken[] {
  return Array.from(tokens, ([content, id]) => ({ id, content, special }));
}

/** The tokenizer's own roles; without any, `<|endoftext|>` begins and ends a text, as GPT-2's does. */
export function rolesOf(tokenizer: Tokenizer): Record<string, unknown> {
  const { special_tokens } = tokenizer.toJSON();
  if (isObject(special_tokens)) return special_tokens;
  return tokenizer.specialTokens?.has(END) ? { bos_token: END, eos_token: END, unk_token: END } : {};
}

/** Ids of the tokens at which a text ends: the tokenizer's own, which may end a turn of a chat, and `<|endoftext|>`; as far as it has them. */
export function endIds(tokenizer: Tokenizer): number[] {
  const tokens = new Set([rolesOf(tokenizer).eos_token, END]),
    { addedTokens } = tokenizer as Partial<BytePairTokenizer>;
  const ids = [...tokens].map((token) =>
    tokenizer.specialTokens?.get(token as string) ?? addedTokens?.get(token as string)
  );
  return ids.filter((id) => id !== undefined);
}

/** As config.json has them. */
export type SpecialIds = {
  readonly bos_token_id: number | null;
  readonly eos_token_id: number | null;
  readonly pad_token_id?: number;
};

/** Ids of the tokens that begin, end and pad a text: null where the tokenizer has none, and none for padding then. */
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

/** Tokens in GPT-2's letters with their ids, and merges, each two tokens with a space between: the tokenizer's own, or made of its bytes. */
export function vocabularyAndMerges({ tables: { json, tokens, special } }: BytePairTokenizer) {
  const more = new Set((json.added_tokens as AddedToken[] | undefined)?.map(({ id }) => id)); // than the encoding has
  // Without a vocabulary of its own, an encoding has bytes for every id.
  const own = () => tokens.flatMap((bytes, id) => more.has(id) ? [] : [[bytesInLetters(bytes!), id]]);
  const vocab = json.vocab ?? Object.fromEntries(own());
  const merges = json.merges ?? recoverMerges(tokens as readonly string[], new Set(special.values()));
  return { vocab, merges } as { vocab: Record<string, number>; merges: string[] };
}

/** Which two tokens each token was merged of: those that are left when its bytes are merged as far as earlier tokens go. */
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

/** Cuts a text into characters. */
export const SPLIT = { type: "Split", pattern: { Regex: String.raw`[\s\S]` }, behavior: "Isolated", invert: false };

/** Every character is a word, and one that is none of them is no token. */
function characterParts({ characters }: CharacterTokenizer): Record<string, unknown> {
  const vocab = Object.fromEntries(characters.map((character, id) => [character, id]));
  return {
    pre_tokenizer: SPLIT,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
  };
}
