/**
 * The tokenizer of GPT-2's files `vocab.json` and `merges.txt`, and of the same in a `tokenizer.json`. Merges of tokens that the
 * vocabulary lacks are refused: other ids than transformers' would be worse than none. As there, a token that no merge makes
 * (`<s>`, `<pad>`) is never the id of a text unless it is an added token, and an id may be left out.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { letterBytes } from "./byte_letters.ts";
import { BETWEEN, BytePairTokenizer, byteString } from "./byte_pair.ts";
import { R50K } from "./patterns.ts";

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
  const own = new Map<string, string>(); // the vocabulary's tokens that merges may make, with their bytes
  for (const [token, id] of Object.entries(vocab)) {
    const bytes = letterBytes(token);
    if (!bytes && texts.has(token)) continue;
    set(token, id, bytes || byteString(token));
    if (bytes) own.set(token, bytes);
  }
  const of = (special: boolean) =>
    new Map(added.filter((token) => token.special === special).map((t) => [t.content, t.id]));
  for (const { content, id } of added) {
    if (Object.hasOwn(vocab, content) && vocab[content] !== id) {
      throw wrong(`the token ${JSON.stringify(content)} has the ids ${vocab[content]} and ${id}`);
    }
    set(content, id, byteString(content));
  }

  const ranks = new Map<string, number>();
  merges.forEach(([left, right], rank) => {
    const merge = `${JSON.stringify(left)} + ${JSON.stringify(right)}`, a = own.get(left), b = own.get(right);
    const missing = a === undefined ? left : b === undefined ? right : own.has(left + right) ? undefined : left + right;
    if (missing !== undefined && Object.hasOwn(vocab, missing)) {
      throw wrong(`the token ${JSON.stringify(missing)} is not written in GPT-2's letters for bytes`);
    }
    if (missing !== undefined) {
      throw wrong(`merge ${rank + 1}, ${merge}, needs ${JSON.stringify(missing)}, which the vocabulary has not`);
    }
    const key = a + BETWEEN + b;
    if (ranks.has(key)) throw wrong(`merge ${rank + 1}, ${merge}, was there before`);
    ranks.set(key, rank);
  });
  const added_tokens = added.map((token) => ({ ...token, lstrip: false, rstrip: false, single_word: false }));
  const json = { type: "bpe", vocab, merges: merges.map((pair) => pair.join(" ")), added_tokens };
  return new BytePairTokenizer({
    tokens: Array.from(tokens),
    merges: ranks,
    pattern: R50K,
    special: of(true),
    added: of(false),
    json,
  });
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
