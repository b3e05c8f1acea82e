/**
 * Turns an example into tokens and marks the tokens that are learned, by the rules of TRL's SFTTrainer 1.16
 * (https://huggingface.co/docs/trl/sft_trainer):
 *
 * - A plain text or completion ends with the end-of-text token.
 * - If an example has a prompt and a completion, only the completion is learned.
 * - The completion begins at the first token that differs between the prompt alone and the prompt with its completion.
 *   So a token that covers the end of the prompt and the start of the completion belongs to the completion.
 *
 * Training and `deno task data`, which shows examples, both use this module.
 */
import { DataError } from "../errors.ts";
import { specialIds } from "../tokenizer/to_hugging_face.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Example, Message, TemplateExtras, Words } from "./examples.ts";
import { labelCount, type TokenRow } from "./token_rows.ts";

/** Turns conversations into tokens. `ChatTemplate` implements this interface. */
export interface ConversationEncoder {
  /**
   * The tokens of a conversation, and for each token whether the assistant wrote it.
   * @param options.addGenerationPrompt whether to append the text that opens an assistant's turn
   */
  encode(
    tokenizer: Tokenizer,
    messages: readonly Message[],
    options: TemplateExtras & { readonly addGenerationPrompt?: boolean },
  ): Promise<{ readonly ids: ArrayLike<number>; readonly assistant: readonly boolean[] }>;
}

/** Options of {@linkcode tokenizeExample}. */
export interface TokenizeOptions {
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
  /** The chat template; required for conversations. */ readonly template?: ConversationEncoder;
  /** Longest row, in tokens; longer rows are cut. Default: no limit. */ readonly maxLength?: number;
  /** Which end of a row remains when it is cut. Default: its start. */ readonly truncation?: "keep_start" | "keep_end";
  /** Whether only the completion is learned if an example has a prompt and a completion. Default: true. */
  readonly completionOnly?: boolean;
  /** Whether only the assistant's messages are learned in a conversation. Default: false. */
  readonly assistantOnly?: boolean;
  /** How special tokens in a plain text are encoded. Default: as special tokens, as in TRL. */ readonly special?:
    EncodeOptions;
  /** The id that ends a plain text, or null to append none. Default: {@linkcode endOfText} of the tokenizer. */
  readonly endOfText?: number | null;
}

/** A row of tokens, which may have been cut, and its length before the cut. */
export interface TokenizedRow extends TokenRow {
  /** Number of tokens before the row was cut. */ readonly fullLength: number;
  /**
   * Whether the last tokens of the prompt change when the completion follows. If so, the tokens of the prompt in
   * training differ from the tokens of the prompt alone, which the model gets when it is used.
   */
  readonly merged: boolean;
}

/** The id of the tokenizer's `eos_token`, or else of `<|endoftext|>`; null if the tokenizer has neither. */
export function endOfText(tokenizer: Tokenizer): number | null {
  return specialIds(tokenizer).eos_token_id;
}

/**
 * Turns an example into tokens.
 *
 * @param example a text or conversation, or a prompt with its completion
 * @returns the row; its `labelCount` is 0 if no token of it is learned, for example because the prompt alone fills
 * `maxLength`
 * @throws {DataError} when the example cannot be encoded, when it is a conversation and there is no template, or when it
 * has no message of the assistant and `assistantOnly` is set. The message names the row
 */
export function tokenizeExample(
  example: Extract<Example, { kind: "text" | "completion" }>,
  options: TokenizeOptions,
): Promise<TokenizedRow> {
  return located(example, async () => {
    const { ids, learned, merged = false } = example.kind === "text"
      ? await wholeText(example, options)
      : await promptAndCompletion(example, options);
    return { ...cutRow({ ids, learned }, options), merged };
  });
}

/** @internal A row, cut to `maxLength` tokens. */
export function cutRow(
  { ids, learned }: TokenRow,
  { maxLength = Infinity, truncation = "keep_start" }: Pick<TokenizeOptions, "maxLength" | "truncation">,
): Omit<TokenizedRow, "merged"> {
  const length = Math.min(ids.length, maxLength), begin = truncation === "keep_start" ? 0 : ids.length - length;
  const part = <T extends Int32Array | Uint8Array>(all: T) => all.slice(begin, begin + length) as T;
  return { ids: part(ids), learned: part(learned), fullLength: ids.length };
}

/** @internal Runs `body` and adds the row's place in the file to the message of its DataError. */
export async function located<T>({ where }: Pick<Example, "where">, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof DataError) || error.message.startsWith(where)) throw error;
    throw new DataError(`${where}: ${error.message}`);
  }
}

/** @internal An example of the given kinds. */
export type Of<K extends Example["kind"]> = Extract<Example, { kind: K }>;

type Whole = TokenRow & { readonly merged?: boolean };

async function wholeText(example: Of<"text">, options: TokenizeOptions): Promise<Whole> {
  const { ids, assistant } = await encode(example.text, options, example, { ends: true });
  return { ids, learned: marks(assistant, options) };
}

async function promptAndCompletion(example: Of<"completion">, options: TokenizeOptions): Promise<Whole> {
  const { prompt, completion } = example, { completionOnly = true } = options;
  const before = (await encode(prompt, options, example, { addGenerationPrompt: true })).ids;
  const { ids, assistant } = await encode(joined(prompt, completion), options, example, { ends: true });
  const learned = marks(assistant, options), start = commonLength(before, ids);
  if (completionOnly) learned.fill(0, 0, start);
  return { ids, learned, merged: start < before.length };
}

/** @internal A prompt followed by its completion; both are texts, or both are conversations. */
export const joined = (prompt: Words, completion: Words): Words =>
  typeof prompt === "string" ? prompt + completion : [...prompt, ...completion as readonly Message[]];

/** @internal Length of the longest common prefix of two rows. */
export function commonLength(a: Int32Array, b: Int32Array): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

interface Encoded {
  readonly ids: Int32Array;
  /** 1 for each token that the assistant wrote, and for every token of a plain text. */
  readonly assistant: Uint8Array;
}

/** @internal The tokens of a text or conversation. With `ends`, the end-of-text token is appended to a plain text. */
export async function encode(
  words: Words,
  { tokenizer, template, special = { allowedSpecial: "all" }, endOfText: end = endOfText(tokenizer), assistantOnly }:
    TokenizeOptions,
  { tools, variables }: TemplateExtras,
  { ends = false, addGenerationPrompt = false },
): Promise<Encoded> {
  if (typeof words !== "string") {
    if (!template) {
      throw new DataError("a conversation, but the model has no chat template; choose one with --template");
    }
    const { ids, assistant } = await template.encode(tokenizer, words, { tools, variables, addGenerationPrompt });
    return { ids: Int32Array.from(ids), assistant: Uint8Array.from(assistant, Number) };
  }
  if (assistantOnly) {
    throw new DataError("a plain text has no messages of an assistant; leave out --assistant_only_loss");
  }
  const text = tokenizer.encode(words, special), ended = !ends || end === null || text.at(-1) === end;
  const ids = new Int32Array(text.length + Number(!ended));
  ids.set(text);
  if (!ended) ids[text.length] = end;
  return { ids, assistant: new Uint8Array(ids.length).fill(1) };
}

/** 1 for each token to learn. @throws {DataError} when only the assistant's tokens are learned and there are none */
function marks(assistant: Uint8Array, { assistantOnly = false }: TokenizeOptions): Uint8Array {
  if (!assistantOnly) return assistant.fill(1);
  if (!assistant.includes(1)) throw new DataError("no message of the assistant, and only its messages are learned");
  return assistant;
}

/** Counts over the rows of a file. */
export interface RowCounts {
  /** Number of rows in the file. */ rows: number;
  /** Rows that were longer than `maxLength` and were cut. */ cut: number;
  /** Rows that were dropped because they have no token to learn. */ dropped: number;
  /** Number of tokens that are learned. */ labels: number;
}

/** Adds a row to the counts. @returns whether the row has a token to learn */
export function countRow(counts: RowCounts, row: TokenizedRow): boolean {
  const labels = labelCount(row);
  counts.rows++;
  counts.cut += Number(row.fullLength > row.ids.length);
  counts.dropped += Number(labels === 0);
  counts.labels += labels;
  return labels > 0;
}
