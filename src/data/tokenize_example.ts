/**
 * An example as the model sees it: its tokens, and which of them are learned. The rules are those of TRL's SFTTrainer 1.16
 * (https://huggingface.co/docs/trl/sft_trainer): a plain text or completion ends with the end-of-text token; of a prompt with a
 * completion the latter alone is learned; it begins where the tokens of the prompt and those of both together part, so that a token
 * across the border counts to the completion. What `deno task data` shows and what is trained on is made here.
 */
import { DataError } from "../errors.ts";
import { specialIds } from "../tokenizer/to_hugging_face.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Example, Message, TemplateExtras, Words } from "./examples.ts";
import { labelCount, type TokenRow } from "./token_rows.ts";

/** What turns a conversation into tokens: a `ChatTemplate`. */
export interface ConversationEncoder {
  /**
   * The tokens of a conversation, and of each whether the assistant has said it.
   * @param options.addGenerationPrompt whether to end with what comes before an answer
   */
  encode(
    tokenizer: Tokenizer,
    messages: readonly Message[],
    options: TemplateExtras & { readonly addGenerationPrompt?: boolean },
  ): Promise<{ readonly ids: ArrayLike<number>; readonly assistant: readonly boolean[] }>;
}

/** How examples become tokens. */
export interface TokenizeOptions {
  /** The model's. */ readonly tokenizer: Tokenizer;
  /** For conversations. */ readonly template?: ConversationEncoder;
  /** The most tokens of a row; longer ones are cut. Default: any number. */ readonly maxLength?: number;
  /** Which end of a longer row stays. Default: its start. */ readonly truncation?: "keep_start" | "keep_end";
  /** Of prompts with completions, whether only the completions are learned. Default: true. */
  readonly completionOnly?: boolean;
  /** Of conversations, whether only what the assistant says is learned. Default: false. */
  readonly assistantOnly?: boolean;
  /** What special tokens in plain texts are. Default: special tokens, as in TRL. */ readonly special?: EncodeOptions;
  /** The id that ends a plain text; null for none. Default: {@linkcode endOfText} of the tokenizer. */
  readonly endOfText?: number | null;
}

/** A row of tokens, and how long it was before it was cut. */
export interface TokenizedRow extends TokenRow {
  /** Tokens of the whole row. */ readonly fullLength: number;
  /**
   * Whether the tokens of the prompt alone end otherwise than with the completion after it: then the model is trained on another
   * prompt than it will see.
   */
  readonly merged: boolean;
}

/** The id with which a tokenizer ends a text: of its `eos_token`, or of `<|endoftext|>`; null where it has none. */
export function endOfText(tokenizer: Tokenizer): number | null {
  return specialIds(tokenizer).eos_token_id;
}

/**
 * Turns an example into tokens.
 *
 * @param example a text or conversation, or a prompt with its completion
 * @returns the row; `labelCount` of it is 0 where nothing of it is learned, as of a prompt that fills `maxLength`
 * @throws {DataError} naming the row: when it cannot be encoded, is a conversation and there is no template, or has no part of the
 * assistant's where these alone are learned
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

/** @internal A row without what is beyond `maxLength`. */
export function cutRow(
  { ids, learned }: TokenRow,
  { maxLength = Infinity, truncation = "keep_start" }: Pick<TokenizeOptions, "maxLength" | "truncation">,
): Omit<TokenizedRow, "merged"> {
  const length = Math.min(ids.length, maxLength), begin = truncation === "keep_start" ? 0 : ids.length - length;
  const part = <T extends Int32Array | Uint8Array>(all: T) => all.slice(begin, begin + length) as T;
  return { ids: part(ids), learned: part(learned), fullLength: ids.length };
}

/** @internal Has an error of `body` name the row. */
export async function located<T>({ where }: Pick<Example, "where">, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof DataError) || error.message.startsWith(where)) throw error;
    throw new DataError(`${where}: ${error.message}`);
  }
}

/** @internal */
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

/** @internal A text and what goes on with it; both are texts or both conversations. */
export const joined = (prompt: Words, completion: Words): Words =>
  typeof prompt === "string" ? prompt + completion : [...prompt, ...completion as readonly Message[]];

/** @internal How many ids two rows begin with alike. */
export function commonLength(a: Int32Array, b: Int32Array): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

interface Encoded {
  readonly ids: Int32Array;
  /** Of each token, whether the assistant has said it; a plain text is all learned. */
  readonly assistant: Uint8Array;
}

/** @internal The tokens of a text or conversation; with `ends` a plain text has its end-of-text token. */
export async function encode(
  words: Words,
  { tokenizer, template, special = { allowedSpecial: "all" }, endOfText: end = endOfText(tokenizer), assistantOnly }:
    TokenizeOptions,
  { tools, variables }: TemplateExtras,
  { ends = false, addGenerationPrompt = false },
): Promise<Encoded> {
  if (typeof words !== "string") {
    if (!template) throw new DataError("a conversation, and the model has no chat template: name one with --template");
    const { ids, assistant } = await template.encode(tokenizer, words, { tools, variables, addGenerationPrompt });
    return { ids: Int32Array.from(ids), assistant: Uint8Array.from(assistant, Number) };
  }
  if (assistantOnly) {
    throw new DataError("a plain text, of which no part is the assistant's; leave out --assistant_only_loss");
  }
  const text = tokenizer.encode(words, special), ended = !ends || end === null || text.at(-1) === end;
  const ids = new Int32Array(text.length + Number(!ended));
  ids.set(text);
  if (!ended) ids[text.length] = end;
  return { ids, assistant: new Uint8Array(ids.length).fill(1) };
}

/** @throws {DataError} when the assistant has said nothing, and that alone is learned */
function marks(assistant: Uint8Array, { assistantOnly = false }: TokenizeOptions): Uint8Array {
  if (!assistantOnly) return assistant.fill(1);
  if (!assistant.includes(1)) throw new DataError("the assistant says nothing, and only what it says is learned");
  return assistant;
}

/** What became of the rows. */
export interface RowCounts {
  /** All rows of the file. */ rows: number;
  /** Rows that were longer than `maxLength`. */ cut: number;
  /** Rows of which nothing is learned: they are left out. */ dropped: number;
  /** Tokens that are learned. */ labels: number;
}

/** Counts what becomes of rows. @returns whether the row is of use */
export function countRow(counts: RowCounts, row: TokenizedRow): boolean {
  const labels = labelCount(row);
  counts.rows++;
  counts.cut += Number(row.fullLength > row.ids.length);
  counts.dropped += Number(labels === 0);
  counts.labels += labels;
  return labels > 0;
}
