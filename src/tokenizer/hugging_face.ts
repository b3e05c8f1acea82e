/**
 * Tokenizers of the files beside a Hugging Face model: `tokenizer.json`, or GPT-2's older `vocab.json` and `merges.txt`. It is
 * byte-level BPE with GPT-2's pattern, and what a `tokenizer.json` asks for beyond that is refused by its name: other ids
 * than transformers' would be worse than none. So are merges and vocabularies that do not fit each other.
 */
import { CheckpointError } from "../errors.ts";
import { BETWEEN, BytePairTokenizer, byteString } from "./byte_pair.ts";
import { CharacterTokenizer } from "./character.ts";
import { R50K } from "./patterns.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A token besides the vocabulary's. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Whether a text has to be allowed to contain it; else it is a token wherever it stands. */
  readonly special: boolean;
}

/** What `vocab.json` and `merges.txt` say. Bytes are written in GPT-2's letters. */
export interface VocabularyAndMerges {
  readonly vocab: Readonly<Record<string, number>>;
  /** In the order of their ranks. */
  readonly merges: readonly (readonly [left: string, right: string])[];
  readonly added: readonly AddedToken[];
}

/** GPT-2's letters for bytes (`bytes_to_unicode`): printable ones stand for themselves, the others are 256, 257, … */
const byteOfLetter = new Map<string, string>();
for (let byte = 0; byte < 256; byte++) {
  const printable = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
  const letter = printable ? byte : 256 + byteOfLetter.size;
  if (!printable) byteOfLetter.set(String.fromCharCode(letter), String.fromCharCode(byte));
}
for (let byte = 0; byte < 256; byte++) {
  const letter = String.fromCharCode(byte);
  if (![...byteOfLetter.values()].includes(letter)) byteOfLetter.set(letter, letter);
}

const letterOfByte = new Map(Array.from(byteOfLetter, ([letter, byte]) => [byte, letter]));

/** Writes bytes in GPT-2's letters. */
export function bytesInLetters(bytes: string): string {
  return Array.from(bytes, (byte) => letterOfByte.get(byte)).join("");
}

/** More would not leave room for a rank and a position in one number. */
const MOST_TOKENS = 2 ** 21;

/**
 * The tokenizer of a vocabulary and its merges.
 *
 * @param path what the errors name
 * @throws {CheckpointError} when they do not fit each other, naming the first entry that is wrong
 */
export function bytePairTokenizer({ vocab, merges, added }: VocabularyAndMerges, path: string): BytePairTokenizer {
  const wrong = (what: string) => new CheckpointError(`${path} is damaged: ${what}`);
  const tokens: (string | undefined)[] = [], texts = new Set(added.map(({ content }) => content));
  const set = (token: string, id: number, bytes: string) => {
    if (!(Number.isInteger(id) && id >= 0 && id < MOST_TOKENS)) {
      throw wrong(`the id of ${JSON.stringify(token)} is ${JSON.stringify(id)}`);
    }
    if (tokens[id] !== undefined && tokens[id] !== bytes) throw wrong(`two tokens have the id ${id}`);
    tokens[id] = bytes;
  };
  const own = new Map<string, string>(); // tokens that merges have to make, with their bytes
  for (const [token, id] of Object.entries(vocab)) {
    if (texts.has(token)) continue;
    const bytes = letterBytes(token);
    if (!bytes) throw wrong(`the token ${JSON.stringify(token)} is not written in GPT-2's letters for bytes`);
    set(token, id, bytes);
    own.set(token, bytes);
  }
  const of = (special: boolean) =>
    new Map(added.filter((token) => token.special === special).map((t) => [t.content, t.id]));
  for (const { content, id } of added) {
    if (Object.hasOwn(vocab, content) && vocab[content] !== id) {
      throw wrong(`the token ${JSON.stringify(content)} has the ids ${vocab[content]} and ${id}`);
    }
    set(content, id, byteString(content));
  }
  const hole = tokens.findIndex((bytes) => bytes === undefined);
  if (hole >= 0) throw wrong(`no token has the id ${hole}`);

  const ranks = new Map<string, number>(), made = new Set<string>();
  merges.forEach(([left, right], rank) => {
    const merge = `${JSON.stringify(left)} + ${JSON.stringify(right)}`, a = own.get(left), b = own.get(right);
    const missing = a === undefined ? left : b === undefined ? right : own.has(left + right) ? undefined : left + right;
    if (missing !== undefined) {
      throw wrong(`merge ${rank + 1}, ${merge}, needs ${JSON.stringify(missing)}, which the vocabulary has not`);
    }
    const key = a + BETWEEN + b;
    if (ranks.has(key)) throw wrong(`merge ${rank + 1}, ${merge}, was there before`);
    ranks.set(key, rank);
    made.add(left + right);
  });
  for (const [token, bytes] of own) {
    if (bytes.length > 1 && !made.has(token)) throw wrong(`no merge makes the token ${JSON.stringify(token)}`);
  }
  const added_tokens = added.map((token) => ({ ...token, lstrip: false, rstrip: false, single_word: false }));
  const json = { type: "bpe", vocab, merges: merges.map((pair) => pair.join(" ")), added_tokens };
  return new BytePairTokenizer({ tokens, merges: ranks, pattern: R50K, special: of(true), added: of(false), json });
}

/** The bytes that a token's letters stand for; nothing where one of them stands for none. */
function letterBytes(token: string): string {
  let bytes = "";
  for (const letter of token) {
    const byte = byteOfLetter.get(letter);
    if (byte === undefined) return "";
    bytes += byte;
  }
  return bytes;
}

/**
 * Reads the JSON of `vocab.json`, or what `toJSON` has kept of one.
 *
 * @throws {CheckpointError} when it is no object of ids
 */
export function parseVocabulary(json: unknown, path: string): Record<string, number> {
  if (isObject(json) && Object.values(json).every((id) => typeof id === "number")) {
    return json as Record<string, number>;
  }
  throw new CheckpointError(`${path} is damaged: it does not hold tokens with their ids`);
}

/**
 * Reads `merges.txt`: a pair a line, the first to be merged first; a line that begins with `#version` is none.
 *
 * @throws {CheckpointError} when a line is no pair, or the file no text
 */
export function parseMerges(bytes: Uint8Array<ArrayBuffer>, path: string): [string, string][] {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CheckpointError(`${path} is damaged: it is not UTF-8 text`);
  }
  const lines = text.split(/\r?\n/);
  if (lines[0].startsWith("#version")) lines.shift();
  if (lines.at(-1) === "") lines.pop();
  return parsePairs(lines, path);
}

/**
 * Reads a list of merges, each a pair or two tokens with a space between.
 *
 * @throws {CheckpointError} when one is neither
 */
export function parsePairs(merges: unknown, path: string): [string, string][] {
  if (!Array.isArray(merges)) throw new CheckpointError(`${path} is damaged: it has no list of merges`);
  return merges.map((merge, i) => {
    const pair: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    if (pair.length === 2 && pair.every((side) => typeof side === "string" && side !== "")) {
      return pair as [string, string];
    }
    throw new CheckpointError(`${path} is damaged: merge ${i + 1} is ${JSON.stringify(merge)}, expected two tokens`);
  });
}

/**
 * The tokenizer of a `tokenizer.json`: of byte pairs, or of characters as `toHuggingFaceTokenizer` writes them.
 *
 * @throws {CheckpointError} when it is of another kind than GPT-2's, naming what is other, or damaged
 */
export function parseTokenizerJson(json: unknown, path: string): Tokenizer {
  const { model, normalizer, pre_tokenizer, post_processor, decoder, added_tokens } = isObject(json) ? json : {};
  if (!isObject(model)) throw new CheckpointError(`${path} is damaged: it has no model`);
  const refuse = (what: string, value: unknown) => {
    const shown = isObject(value) && "type" in value ? value.type : value;
    return new CheckpointError(
      `${path}: ${what} is ${JSON.stringify(shown)}, and only byte-level BPE as GPT-2's is read here`,
    );
  };
  const characters = charactersOf(model, pre_tokenizer);
  if (characters && !normalizer && !post_processor && !(Array.isArray(added_tokens) && added_tokens.length > 0)) {
    return new CharacterTokenizer(characters);
  }
  // Older files name no type.
  if ((model.type ?? "BPE") !== "BPE") throw refuse("model.type", model.type);
  for (const name of ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[name]) throw refuse(`model.${name}`, model[name]);
  }
  for (const name of ["byte_fallback", "ignore_merges"]) if (model[name]) throw refuse(`model.${name}`, model[name]);
  if (normalizer) throw refuse("normalizer", normalizer);
  if (!isObject(pre_tokenizer) || pre_tokenizer.type !== "ByteLevel") {
    throw refuse("pre_tokenizer", pre_tokenizer ?? null);
  }
  if (pre_tokenizer.add_prefix_space !== false) {
    throw refuse("pre_tokenizer.add_prefix_space", pre_tokenizer.add_prefix_space ?? null);
  }
  if (pre_tokenizer.use_regex === false) throw refuse("pre_tokenizer.use_regex", false);
  if (post_processor && !addsNothing(post_processor)) throw refuse("post_processor", post_processor);
  if (decoder && !(isObject(decoder) && decoder.type === "ByteLevel")) throw refuse("decoder", decoder);
  const added = parseAdded(added_tokens ?? [], path);
  return bytePairTokenizer(
    { vocab: parseVocabulary(model.vocab, path), merges: parsePairs(model.merges, path), added },
    path,
  );
}

/** The characters of a model whose words are characters, as `toHuggingFaceTokenizer` writes it. */
function charactersOf({ type, vocab }: Record<string, unknown>, splitter: unknown): string[] | undefined {
  const split = { type: "Split", pattern: { Regex: String.raw`[\s\S]` }, behavior: "Isolated", invert: false };
  if (type !== "WordLevel" || !isObject(vocab) || !isObject(splitter)) return;
  if (Object.entries(split).some(([name, value]) => JSON.stringify(splitter[name]) !== JSON.stringify(value))) return;
  const characters: string[] = [];
  for (const [token, id] of Object.entries(vocab)) if ([...token].length === 1) characters[Number(id)] = token;
  const complete = characters.length === Object.keys(vocab).length && !characters.includes(undefined!);
  return complete ? characters : undefined;
}

/** Whether a post-processor leaves the ids of a text as they are; a template that is the text alone does. */
function addsNothing(processor: unknown): boolean {
  if (!isObject(processor)) return false;
  const { type, single } = processor;
  if (type === "TemplateProcessing" && Array.isArray(single)) {
    return single.length === 1 && isObject(single[0].Sequence);
  }
  return type === "ByteLevel";
}

/**
 * Reads `added_tokens`.
 *
 * @throws {CheckpointError} when it is damaged, or takes white space away with a token
 */
export function parseAdded(list: unknown, path: string): AddedToken[] {
  if (!Array.isArray(list)) throw new CheckpointError(`${path} is damaged: added_tokens is no list`);
  return list.map((token) => {
    const { content, id, special } = isObject(token) ? token : {};
    // A flag that is not there may have been misspelt.
    const complete = isObject(token) && [...FLAGS, "special"].every((name) => typeof token[name] === "boolean");
    if (typeof content !== "string" || content === "" || typeof id !== "number" || !complete) {
      throw new CheckpointError(`${path} is damaged: ${JSON.stringify(token)} is no added token`);
    }
    for (const name of FLAGS) {
      if (!token[name]) continue;
      throw new CheckpointError(
        `${path}: the added token ${JSON.stringify(content)} has ${name}, which is not read here`,
      );
    }
    return { content, id, special: special === true };
  });
}

/** What an added token can ask for besides, none of which is done here. */
const FLAGS = ["lstrip", "rstrip", "single_word"] as const;

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
