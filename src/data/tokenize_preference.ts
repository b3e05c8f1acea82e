/**
 * Preferences and prompts as the model sees them: tokens of a prompt, and of two answers of which the first is preferred. The rules
 * are those of TRL's DPOTrainer 1.16 (https://huggingface.co/docs/trl/dpo_trainer): the answers begin where the tokens of the prompt
 * part from those of the prompt with either answer, and plain texts end with the end-of-text token. Unlike in TRL equal answers and
 * empty ones are errors, and no answer loses its end where one goes on from the other.
 */
import { DataError } from "../errors.ts";
import type { Words } from "./examples.ts";
import {
  commonLength,
  cutRow,
  encode,
  joined,
  located,
  type Of,
  type TokenizedRow,
  type TokenizeOptions,
} from "./tokenize_example.ts";

/** A preference as tokens. */
export interface TokenizedPreference {
  /** What both texts begin with. */ readonly prompt: Int32Array;
  /** The preferred answer, one token or more. */ readonly chosen: Int32Array;
  /** The other answer, one token or more. */ readonly rejected: Int32Array;
  /** Whether the tokens of the prompt alone end otherwise than with an answer after it. */ readonly merged: boolean;
}

/**
 * Turns a preference into tokens. Where no prompt stands beside the answers, it is what both begin with: turns, or letters up to the
 * last space.
 *
 * @param options `maxLength`, `completionOnly` and `assistantOnly` say nothing of preferences
 * @throws {DataError} naming the row: when the answers are equal, one is empty, or the row cannot be encoded
 */
export function tokenizePreference(
  example: Of<"preference">,
  options: TokenizeOptions,
): Promise<TokenizedPreference> {
  return located(example, async () => {
    const how = { ...options, assistantOnly: false }, { prompt, chosen, rejected } = withPrompt(example);
    if (JSON.stringify(chosen) === JSON.stringify(rejected)) {
      throw new DataError("chosen and rejected are equal; expected two answers, the first of them preferred");
    }
    for (const [name, answer] of Object.entries({ chosen, rejected })) {
      if (!isEmpty(answer)) continue;
      const why = example.prompt === undefined ? "all of it begins the other answer" : "it is empty";
      throw new DataError(`${name} has no answer to the prompt: ${why}`);
    }
    const { ids } = await encode(prompt, how, example, { addGenerationPrompt: true });
    const whole = async (answer: Words) => (await encode(joined(prompt, answer), how, example, { ends: true })).ids;
    const better = await whole(chosen), worse = await whole(rejected);
    const length = Math.min(commonLength(ids, better), commonLength(ids, worse));
    const answers = { chosen: better.slice(length), rejected: worse.slice(length) };
    for (const [name, { length }] of Object.entries(answers)) {
      if (length === 0) throw new DataError(`${name} has no token after the prompt's`);
    }
    if (commonLength(better, worse) === Math.max(better.length, worse.length)) {
      throw new DataError(
        "chosen and rejected have the same tokens; expected two answers, the first of them preferred",
      );
    }
    return { prompt: ids.slice(0, length), ...answers, merged: length < ids.length };
  });
}

/**
 * Turns a prompt into tokens; a conversation ends with what comes before an answer.
 *
 * @throws {DataError} naming the row, when it has no token or cannot be encoded
 */
export function tokenizePrompt(example: Of<"prompt">, options: TokenizeOptions): Promise<Int32Array> {
  return located(example, async () => {
    const how = { ...options, assistantOnly: false };
    const { ids } = await encode(example.prompt, how, example, { addGenerationPrompt: true });
    if (ids.length > 0) return ids;
    throw new DataError("the prompt has no token; expected one or more");
  });
}

/**
 * Turns a ranking, or a preference, into tokens: of each answer those of the prompt with it, the best first.
 *
 * @throws {DataError} naming the row: when two answers are equal, one is empty, or the row cannot be encoded
 */
export function tokenizeRanking(
  example: Of<"ranking"> | Of<"preference">,
  options: TokenizeOptions,
): Promise<Int32Array[]> {
  return located(example, async () => {
    if (example.kind === "preference") {
      const { chosen, rejected } = preferenceRows(await tokenizePreference(example, options), {});
      return [chosen.ids, rejected.ids];
    }
    const how = { ...options, assistantOnly: false }, { prompt, completions } = example, found: Int32Array[] = [];
    for (const [i, answer] of completions.entries()) {
      if (isEmpty(answer)) throw new DataError(`completions[${i}] is empty; expected an answer`);
      const { ids } = await encode(joined(prompt, answer), how, example, { ends: true });
      const same = found.findIndex((other) => `${other}` === `${ids}`);
      if (same >= 0) {
        throw new DataError(`completions[${same}] and [${i}] have the same tokens; expected answers in an order`);
      }
      found.push(ids);
    }
    return found;
  });
}

/** A preference as two rows, each cut to `maxLength`, of which the answers are learned. */
export function preferenceRows(
  { prompt, merged, ...answers }: TokenizedPreference,
  options: Pick<TokenizeOptions, "maxLength" | "truncation">,
): { chosen: TokenizedRow; rejected: TokenizedRow } {
  const row = (answer: Int32Array): TokenizedRow => {
    const ids = new Int32Array(prompt.length + answer.length);
    ids.set(prompt);
    ids.set(answer, prompt.length);
    return { ...cutRow({ ids, learned: new Uint8Array(ids.length).fill(1, prompt.length) }, options), merged };
  };
  return { chosen: row(answers.chosen), rejected: row(answers.rejected) };
}

/** A conversation's answer may call a function and say nothing. */
const isEmpty = (answer: Words): boolean =>
  typeof answer === "string"
    ? answer === ""
    : answer.every(({ content, tool_calls }) => content === "" && tool_calls === undefined);

/** The preference with its prompt apart from the answers. */
function withPrompt({ prompt, chosen, rejected }: Of<"preference">): Record<"prompt" | "chosen" | "rejected", Words> {
  if (prompt !== undefined) return { prompt, chosen, rejected };
  const length = typeof chosen === "string" ? sharedLetters(chosen, rejected as string) : sharedTurns(chosen, rejected);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

function sharedTurns(chosen: Words, rejected: Words): number {
  const most = Math.min(chosen.length, rejected.length) - 1; // an answer is left of each
  let length = 0;
  while (length < most && JSON.stringify(chosen[length]) === JSON.stringify(rejected[length])) length++;
  return length;
}

/** One space before the answers is theirs, and no letter of two code units is cut in two. */
function sharedLetters(chosen: string, rejected: string): number {
  let length = 0;
  while (length < chosen.length && chosen[length] === rejected[length]) length++;
  if (/[ \ud800-\udbff]/.test(chosen[length - 1] ?? "")) length--;
  return length;
}
