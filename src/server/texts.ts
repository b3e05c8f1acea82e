/** Encodes and decodes texts for the routes, and validates prompts against the model. */
import { DataError } from "../errors.ts";
import { modelDecoder } from "../generate/stopping.ts";
import { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import { beginning, type Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ServedModel } from "./engine_api.ts";
import { invalid } from "./errors.ts";
import { either, type Field, integer, list, string } from "./fields.ts";

/** Maximum number of tokens of a prompt: more than any model's context. */
const MOST_TOKENS = 65_536;
export const textField = string({ max: 2 ** 20 });
export const idsField = list(integer({ min: 0, max: 2 ** 31 - 1 }), { min: 1, max: MOST_TOKENS });

/** A text or a list of token ids. */
export type Written = string | readonly number[];
const isText = (value: unknown) => typeof value === "string";
const isIds = (value: unknown) => Array.isArray(value) && typeof value[0] === "number";
export const writtenField: Field<Written> = either<Written>("a string or a list of tokens", [
  { is: isText, field: textField },
  { is: isIds, field: idsField },
]);

/** A field for one or several texts, each a string or token ids; its value is always a list. */
export function writtenFields(most: number, { min = 0 } = {}): Field<readonly Written[]> {
  const text = min > 0 ? string({ min, max: 2 ** 20 }) : textField;
  const one = <T extends Written>(field: Field<T>): Field<readonly Written[]> => ({
    schema: field.schema,
    check: (value, at) => [field.check(value, at)],
  });
  return either<readonly Written[]>("a string, a list of strings, or tokens", [
    { is: isText, field: one(text) },
    { is: isIds, field: one(idsField) },
    { is: (value) => Array.isArray(value) && Array.isArray(value[0]), field: list(idsField, { min: 1, max: most }) },
    { is: Array.isArray, field: list(text, { min: 1, max: most }) },
  ]);
}

/**
 * Returns the tokens of a prompt.
 *
 * @param at the parameter's name, for messages
 * @throws {ApiError} 400 if a token or a character is not in the vocabulary, or the text is longer than the model's
 *   context
 */
export function encode(model: ServedModel, written: Written, at: string): readonly number[] {
  const { tokenizer, blockSize, vocabSize, id } = model;
  if (typeof written !== "string") {
    const stray = written.find((token) => token >= vocabSize);
    if (stray === undefined) return written;
    throw invalid(at, `${at}: ${stray} is not a valid token id; expected 0 to ${vocabSize - 1}`);
  }
  if (written === "") return Array.from(beginningOf(model));
  if (written.length > blockSize * longestOf(tokenizer)) throw tooLong(model, at);
  try {
    // Encodes longer and longer parts, and stops when one is already too long: other requests wait while a text is
    // encoded.
    for (let length = 8 * blockSize; length < written.length; length *= 2) {
      if (tokenizer.encode(written.slice(0, length), { allowedSpecial: "all" }).length > 2 * blockSize) {
        throw tooLong(model, at);
      }
    }
    return Array.from(tokenizer.encode(written, { allowedSpecial: "all" }));
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const unknown = unknownIn(tokenizer, written);
    const what = unknown ? `the character ${shownCharacter(unknown)}` : "a character";
    throw invalid(at, `${at} has ${what}, which is not in the vocabulary of ${id}`, "unknown_character");
  }
}

/** Milliseconds of encoding after which other requests get a turn. */
const TURN = 15;
/** Calls `make` with each text. Other requests get turns in between, because a body may hold a megabyte of texts. */
export async function eachText<T>(
  texts: readonly Written[],
  make: (written: Written, index: number) => T,
): Promise<T[]> {
  const made: T[] = [];
  let began = performance.now();
  for (const [i, written] of texts.entries()) {
    made.push(make(written, i));
    if (performance.now() - began < TURN) continue;
    await new Promise((resolve) => setTimeout(resolve, 0)); // unlike setImmediate, this lets connections proceed
    began = performance.now();
  }
  return made;
}

/** The token from which an empty prompt continues: the end of text, or a line end. */
export function beginningOf({ tokenizer }: ServedModel): Int32Array {
  const end = tokenizer.specialTokens?.get("<|endoftext|>");
  return end === undefined ? beginning(tokenizer) : Int32Array.of(end);
}

function unknownIn(tokenizer: Tokenizer, text: string): string | undefined {
  return new Set(text).values().take(2000).find((character) => {
    try {
      tokenizer.encode(character, { disallowedSpecial: new Set() });
      return false;
    } catch {
      return true;
    }
  });
}
const shownCharacter = (character: string) =>
  `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`;

/** Bytes of each tokenizer's longest token: no token has more characters than that. */
const longest = new WeakMap<object, number>();
function longestOf(tokenizer: Tokenizer): number {
  let most = longest.get(tokenizer);
  if (most === undefined) {
    most = tokenizer.lengthOf ? 1 : Infinity;
    for (let id = 0; id < tokenizer.vocabSize && tokenizer.lengthOf; id++) {
      most = Math.max(most, lengthOf(tokenizer, id));
    }
    longest.set(tokenizer, most);
  }
  return most;
}
function lengthOf(tokenizer: Tokenizer, id: number): number {
  try {
    return tokenizer.lengthOf!(id);
  } catch {
    return 0; // an unused id
  }
}

/**
 * Checks the length of a request.
 *
 * @throws {ApiError} 400 if the prompt and the new tokens together exceed the model's context
 */
export function checkLength(model: ServedModel, prompt: number, added: number, at: string): void {
  if (prompt + added <= model.blockSize) return;
  throw tooLong(model, at, `${prompt} in the prompt${added > 0 ? ` and ${added} new ones` : ""}`);
}
function tooLong({ blockSize }: ServedModel, at: string, asked = "more in the prompt alone"): Error {
  const message = `This model's maximum context length is ${blockSize} tokens, but the request has ${asked}`;
  return invalid(at, `${message}; shorten the text, or ask for fewer tokens`, "context_length_exceeded");
}

/** Returns the text of tokens. */
export function decode({ tokenizer }: ServedModel, ids: Iterable<number>): string {
  const decoder = modelDecoder(tokenizer);
  let text = "";
  for (const id of ids) text += decoder.push(id);
  return text + decoder.end();
}

const encoder = new TextEncoder();
/** Returns the UTF-8 bytes of a token, which may be only a part of a character. */
export function bytesOf(tokenizer: Tokenizer, id: number): number[] {
  if (id >= tokenizer.vocabSize) return [...encoder.encode("\ufffd")];
  const bytes = tokenizer instanceof BytePairTokenizer ? tokenizer.tables.tokens[id] : undefined;
  return bytes === undefined ? [...encoder.encode(tokenizer.decode([id]))] : Array.from(bytes, (c) => c.charCodeAt(0));
}
/**
 * Returns a token's name in answers: its text, or, if it is a part of a character, its bytes such as `bytes:\xe2\x80`,
 * as in OpenAI's API.
 */
export function nameOf(tokenizer: Tokenizer, id: number): string {
  const bytes = Uint8Array.from(bytesOf(tokenizer, id));
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}
