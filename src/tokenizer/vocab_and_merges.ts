/**
 * Makes a tokenizer from GPT-2's files `vocab.json` and `merges.txt`, or from the vocabulary and merges in a
 * `tokenizer.json`. A merge whose tokens are not in the vocabulary is an error, because wrong ids would be worse than
 * an error. As in transformers, `encode` never returns a token that no merge creates (`<s>`, `<pad>`), unless it is an
 * added token; and the vocabulary may leave ids unused.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { letterBytes } from "./byte_letters.ts";
import { BETWEEN, BytePairTokenizer, byteString } from "./byte_pair.ts";
import { R50K } from "./patterns.ts";

/** A token that is added to the vocabulary. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** If true, the token is recognised only if `encode` allows it; otherwise it is always recognised. */
  readonly special: boolean;
}

/** The contents of `vocab.json` and `merges.txt`, in GPT-2's letters. */
export interface VocabularyAndMerges {
  /** Ids by token. */
  readonly vocab: Readonly<Record<string, number>>;
  /** Merges, in the order of their ranks. */
  readonly merges: readonly (readonly [left: string, right: string])[];
  readonly added: readonly AddedToken[];
}

/** The maximum number of tokens: a rank and a position must fit into one number (merge.ts). */
const MOST_TOKENS = 2 ** 21;

/**
 * Makes a tokenizer from a vocabulary and its merges.
 *
 * @param path path of the file, for messages
 * @throws {CheckpointError} when vocabulary and merges do not fit; the message names the first wrong entry
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
  const own = new Map<string, string>(); // the bytes of the tokens that merges can create
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
      throw wrong(`merge ${rank + 1}, ${merge}, needs ${JSON.stringify(missing)}, which is not in the vocabulary`);
    }
    const key = a + BETWEEN + b;
    if (ranks.has(key)) throw wrong(`merge ${rank + 1}, ${merge}, occurs twice`);
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
 * Checks the JSON of a `vocab.json`, or a vocabulary that `toJSON` saved.
 *
 * @throws {CheckpointError} when it is not an object with ids as its values
 */
export function parseVocabulary(json: unknown, path: string): Record<string, number> {
  if (isObject(json) && Object.values(json).every((id) => typeof id === "number")) {
    return json as Record<string, number>;
  }
  throw new CheckpointError(`${path} is damaged: it is not an object of tokens and ids`);
}

/**
 * Parses `merges.txt`: one pair per line, in the order of their ranks. A first line that begins with `#version` is
 * skipped.
 *
 * @throws {CheckpointError} when a line is not a pair, or the file is not UTF-8
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
 * Checks a list of merges. A merge is a pair of tokens, or a text of two tokens with a space between them.
 *
 * @throws {CheckpointError} when a merge has neither form
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
 * Checks a list of `added_tokens`.
 *
 * @throws {CheckpointError} when the list is damaged, or a token has a flag that is not supported
 */
export function parseAdded(list: unknown, path: string): AddedToken[] {
  if (!Array.isArray(list)) throw new CheckpointError(`${path} is damaged: added_tokens is not a list`);
  return list.map((token) => {
    const { content, id, special } = isObject(token) ? token : {};
    // All flags are required, because a flag that is missing may have been misspelt.
    const complete = isObject(token) && [...FLAGS, "special"].every((name) => typeof token[name] === "boolean");
    if (typeof content !== "string" || content === "" || typeof id !== "number" || !complete) {
      throw new CheckpointError(`${path} is damaged: ${JSON.stringify(token)} is not a valid added token`);
    }
    for (const name of FLAGS) {
      if (!token[name]) continue;
      throw new CheckpointError(
        `${path}: the added token ${JSON.stringify(content)} has ${name}, which is not supported`,
      );
    }
    return { content, id, special: special === true };
  });
}

/** Flags of added tokens that are not supported and must be false. */
const FLAGS = ["lstrip", "rstrip", "single_word"] as const;
