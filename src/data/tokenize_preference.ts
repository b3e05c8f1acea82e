/**
 * Turns preferences and prompts into tokens. A preference is a prompt and two answers, the first of which is preferred.
 * The rules are TRL's (DPOTrainer 1.16, https://huggingface.co/docs/trl/dpo_trainer): the answers begin at the
 * first token that differs between the prompt alone and the prompt with either answer, and a plain text ends with the
 * end-of-text token. There are two differences. Equal or empty answers are errors. And if one answer is the beginning of
 * the other answer, neither of them loses its end.
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
  /** Tokens of the prompt. */ readonly prompt: Int32Array;
  /** The preferred answer, at least one token. */ readonly chosen: Int32Array;
  /** The other answer, at least one token. */ readonly rejected: Int32Array;
  /** Whether the last tokens of the prompt change when an answer follows. */ readonly merged: boolean;
}

/**
 * Turns a preference into tokens. If the row has no prompt, the prompt is the common beginning of both answers, in
 * messages or characters. If a common text ends with a space, the space belongs to the answers.
 *
 * @param options `maxLength`, `completionOnly` and `assistantOnly` are ignored
 * @throws {DataError} when the answers are equal, one of them is empty, or the row cannot be encoded. The message names
 * the row
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
      const why = example.prompt === undefined ? "the other answer begins with all of it" : "it is empty";
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
 * Turns a prompt into tokens. A conversation ends with the tokens that open an assistant's turn.
 *
 * @throws {DataError} when the prompt has no tokens or cannot be encoded. The message names the row
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
 * Turns a ranking or a preference into tokens.
 *
 * @returns one row per answer, best first: the tokens of the prompt followed by the answer
 * @throws {DataError} when two answers are equal, an answer is empty, or the row cannot be encoded. The message names
 * the row
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

/** A preference as two rows, each cut to `maxLength`. Only the answers are learned. */
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

/** Whether an answer has no text. A message that calls a function counts as not empty. */
const isEmpty = (answer: Words): boolean =>
  typeof answer === "string"
    ? answer === ""
    : answer.every(({ content, tool_calls }) => content === "" && tool_calls === undefined);

/** The prompt and the answers of a preference. If the row has no prompt, it is split off from the answers. */
function withPrompt({ prompt, chosen, rejected }: Of<"preference">): Record<"prompt" | "chosen" | "rejected", Words> {
  if (prompt !== undefined) return { prompt, chosen, rejected };
  const length = typeof chosen === "string" ? sharedLetters(chosen, rejected as string) : sharedTurns(chosen, rejected);
  return { prompt: chosen.slice(0, length), chosen: chosen.slice(length), rejected: rejected.slice(length) };
}

function sharedTurns(chosen: Words, rejected: Words): number {
  const most = Math.min(chosen.length, rejected.length) - 1; // leave at least one message of each as the answer
  let length = 0;
  while (length < most && JSON.stringify(chosen[length]) === JSON.stringify(rejected[length])) length++;
  return length;
}

/** The length of the common beginning of two texts, without a space or half a surrogate pair at its end. */
function sharedLetters(chosen: string, rejected: string): number {
  let length = 0;
  while (length < chosen.length && chosen[length] === rejected[length]) length++;
  if (/[ \ud800-\udbff]/.test(chosen[length - 1] ?? "")) length--;
  return length;
}
