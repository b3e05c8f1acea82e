/**
 * Turns rows into token sequences for a model with a head. There are two forms. In transformers' form for GPT-2, the
 * tokens of a text and its pair follow each other. In GPT-1's form (Radford et al. 2018, section 3.3), special tokens
 * begin, separate and end texts:
 *
 *     classify   start text extract
 *     entail     start premise delimiter hypothesis extract
 *     similar    start text delimiter other extract, and a second sequence with the two texts swapped
 *     choose     start context delimiter choice extract, once for each choice
 */
import type { Example } from "../data/examples.ts";
import { ConfigError, DataError } from "../errors.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { RandomGenerator } from "../random/mod.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";

/**
 * What a head predicts: labels of a text or a pair (`classify`), labels of a premise with a hypothesis (`entail`),
 * labels of two texts in either order (`similar`), or which choice continues a context (`choose`).
 */
export type HeadKind = "classify" | "entail" | "similar" | "choose";

/** The ids of GPT-1's three special tokens. */
export interface InputTokens {
  /** Begins a sequence. */ readonly start: number;
  /** Separates two texts. */ readonly delimiter: number;
  /** Ends a sequence. Its hidden state is the head's input. */ readonly extract: number;
}

/** Options of {@linkcode inputsOf}. */
export interface InputOptions {
  /** What the head predicts. */ readonly kind: HeadKind;
  /** The model's tokenizer. */ readonly tokenizer: Pick<Tokenizer, "encode">;
  /** Maximum tokens in a sequence. */ readonly maxLength: number;
  /** Which part of a text that is too long remains. Default: `keep_start`. */
  readonly truncation?: "keep_start" | "keep_end";
  /** How special tokens in texts are encoded. Default: as tokens, as in transformers. */
  readonly special?: EncodeOptions;
  /** GPT-1's tokens, required by `entail` and `similar`. Default: transformers' form. */ readonly tokens?: InputTokens;
}

/** A row of data: a text with a label, or a context with choices. */
export type HeadExample = Extract<Example, { readonly kind: "label" | "choice" }>;

/** The token sequences that a row becomes. */
export interface Inputs {
  /** One sequence; two for `similar`; one for each choice for `choose`. */ readonly sequences: readonly Int32Array[];
  /** Whether a text was truncated. */ readonly cut: boolean;
}

/**
 * Encodes a row. A sequence longer than `maxLength` is truncated at the end, or at the beginning with `keep_end`. In
 * GPT-1's form, each of two texts is truncated to half of the room. In transformers' form, two texts are truncated as
 * one; for `choose` the context is truncated, and the choice only if it is longer than half of the room.
 *
 * @throws {DataError} when the row lacks a text that the kind needs, or a sequence would have no token
 */
export function inputsOf(
  example: HeadExample | Omit<HeadExample, "label">,
  { kind, tokenizer, maxLength, tokens, truncation, special = { allowedSpecial: "all" } }: InputOptions,
): Inputs {
  const { where } = example, row = example as { text?: string; pair?: string; context?: string; choices?: string[] };
  let cut = false;
  const encode = (text: string) => {
    try {
      return tokenizer.encode(text, special);
    } catch (error) {
      throw error instanceof DataError ? new DataError(`${where}: ${error.message}`) : error;
    }
  };
  const within = (ids: Int32Array, room: number) => {
    cut ||= ids.length > room;
    if (ids.length <= room) return ids;
    return truncation === "keep_end"
      ? ids.subarray(ids.length - Math.max(0, room))
      : ids.subarray(0, Math.max(0, room));
  };
  const joined = (...parts: ArrayLike<number>[]) => Int32Array.from(parts.flatMap((part) => Array.from(part)));
  const marked = (first: Int32Array, second?: Int32Array) => {
    const { start, delimiter, extract } = tokens!;
    if (!second) return joined([start], within(first, maxLength - 2), [extract]);
    const fits = first.length + second.length + 3 <= maxLength, room = fits ? maxLength : Math.floor(maxLength / 2) - 2;
    return joined([start], within(first, room), [delimiter], within(second, room), [extract]);
  };
  const pair = () => {
    if (row.pair === undefined) throw new DataError(`${where}: ${kind} needs two texts, but the row has one`);
    if (!tokens) throw new ConfigError(`${kind} needs the tokens start, delimiter and extract`);
    return [encode(row.text!), encode(row.pair)] as const;
  };
  const of: Readonly<Record<HeadKind, () => Int32Array[]>> = {
    classify() {
      const [text, second] = [encode(row.text!), row.pair === undefined ? undefined : encode(row.pair)];
      return [tokens ? marked(text, second) : within(joined(text, second ?? []), maxLength)];
    },
    entail() {
      return [marked(...pair())];
    },
    similar() {
      const [text, second] = pair();
      return [marked(text, second), marked(second, text)];
    },
    choose() {
      const context = encode(row.context!);
      return row.choices!.map((choice) => {
        if (tokens) return marked(context, encode(choice));
        const ids = within(encode(choice), Math.max(Math.ceil(maxLength / 2), maxLength - context.length));
        return joined(within(context, maxLength - ids.length), ids);
      });
    },
  };
  if (kind === "choose" ? row.choices === undefined : row.text === undefined) {
    throw new DataError(
      `${where}: ${kind} needs ${kind === "choose" ? "a context with choices" : "a text with a label"}`,
    );
  }
  if (row.choices && row.choices.length < 2) throw new DataError(`${where}: expected two or more choices`);
  const sequences = of[kind]();
  if (sequences.some(({ length }) => length === 0)) throw new DataError(`${where}: the text has no token`);
  return { sequences, cut };
}

/** GPT-1's three special tokens: start, delimiter, extract. */
export const INPUT_TOKENS = ["_start_", "_delimiter_", "_classify_"] as const;

/**
 * Adds GPT-1's three tokens to a tokenizer, if it lacks them, and adds their embeddings, drawn from N(0, 0.02), to the
 * model. Call it before you create an optimizer.
 *
 * @returns the tokenizer with the three tokens, and their ids
 * @throws {ConfigError} when the embeddings are not stored in f32
 */
export function addInputTokens(
  model: GPT,
  tokenizer: Tokenizer,
  { seed = 1337 }: { readonly seed?: number } = {},
): { tokenizer: Tokenizer; tokens: InputTokens } {
  const known = tokenizer.vocabSize, more = tokenizer.withSpecialTokens(INPUT_TOKENS), added = more.vocabSize - known;
  if (added > 0) {
    model.resizeTokenEmbeddings(more.vocabSize, { known: Math.min(known, model.config.vocabSize) });
    const { config: { nEmbd }, transformer: { wte }, device } = model, { block, offset } = wte.weight.storage;
    const drawn = new Float32Array(added * nEmbd);
    new RandomGenerator(seed).normal(drawn, 0, 0.02);
    device.write(new Storage(block, drawn.length, offset + known * nEmbd), drawn);
  }
  return { tokenizer: more, tokens: inputTokens(more) };
}

/** The ids of GPT-1's three tokens. @throws {DataError} when the tokenizer lacks one of them */
export function inputTokens({ specialTokens }: Pick<Tokenizer, "specialTokens">): InputTokens {
  const [start, delimiter, extract] = INPUT_TOKENS.map((token) => specialTokens?.get(token));
  if (start !== undefined && delimiter !== undefined && extract !== undefined) return { start, delimiter, extract };
  throw new DataError(`the tokenizer lacks one of the tokens ${INPUT_TOKENS.join(", ")}`);
}
