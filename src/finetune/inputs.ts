/**
 * What a head's model sees of a row. As transformers' tokenizer gives a text and its pair to GPT-2: their tokens, one after the
 * other. Or as GPT-1 (Radford et al. 2018, section 3.3), with tokens that begin, part and end them:
 *
 *     classify   start text extract
 *     entail     start premise delimiter hypothesis extract
 *     similar    the same of both texts, in either order
 *     choose     start context delimiter choice extract, once for each choice
 */
import type { Example } from "../data/examples.ts";
import { ConfigError, DataError } from "../errors.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { RandomGenerator } from "../random/mod.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";

/** What a head is asked: which labels a text has, or a pair; how two texts compare; or which choice goes on. */
export type HeadKind = "classify" | "entail" | "similar" | "choose";

/** GPT-1's three tokens, by their ids. */
export interface InputTokens {
  /** Begins a sequence. */ readonly start: number;
  /** Stands between two texts. */ readonly delimiter: number;
  /** Ends a sequence: its hidden state is what the head sees. */ readonly extract: number;
}

/** How rows become tokens. */
export interface InputOptions {
  /** What the head is asked. */ readonly kind: HeadKind;
  /** The model's. */ readonly tokenizer: Pick<Tokenizer, "encode">;
  /** Of a sequence at most, in tokens. */ readonly maxLength: number;
  /** Which end of a longer text stays; default `keep_start`. */ readonly truncation?: "keep_start" | "keep_end";
  /** What special tokens in texts are; default: tokens, as transformers takes them. */ readonly special?:
    EncodeOptions;
  /** GPT-1's, which `entail` and `similar` need; without them, transformers' form. */ readonly tokens?: InputTokens;
}

/** A row with a label, or with choices. */
export type HeadExample = Extract<Example, { readonly kind: "label" | "choice" }>;

/** The sequences of a row. */
export interface Inputs {
  /** One, two for `similar`, or one for each choice. */ readonly sequences: readonly Int32Array[];
  /** Whether the end of a text was cut off. */ readonly cut: boolean;
}

/**
 * The tokens of a row. A sequence that is longer than `maxLength` is cut at its end, or at its beginning. In GPT-1's form each of two
 * texts is cut to half of the room. In transformers' form two texts are cut as one; of a context with its choice the context is cut,
 * and the choice where it is longer than half of the room.
 *
 * @throws {DataError} when the row has not the texts that the kind needs, or none that has a token
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
    if (row.pair === undefined) throw new DataError(`${where}: ${kind} needs two texts, and there is one`);
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
  if (row.choices && row.choices.length < 2) throw new DataError(`${where}: there are no two choices to choose from`);
  const sequences = of[kind]();
  if (sequences.some(({ length }) => length === 0)) throw new DataError(`${where}: the text has no token`);
  return { sequences, cut };
}

/** GPT-1's names of its three tokens: start, delimiter, extract. */
export const INPUT_TOKENS = ["_start_", "_delimiter_", "_classify_"] as const;

/**
 * Adds GPT-1's three tokens to a tokenizer that has not got them, and their embeddings to its model, from N(0, 0.02). Before an
 * optimizer is made.
 *
 * @returns the tokenizer with them, and their ids
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

/** The ids of GPT-1's three tokens. @throws {DataError} when the tokenizer has not got them */
export function inputTokens({ specialTokens }: Pick<Tokenizer, "specialTokens">): InputTokens {
  const [start, delimiter, extract] = INPUT_TOKENS.map((token) => specialTokens?.get(token));
  if (start !== undefined && delimiter !== undefined && extract !== undefined) return { start, delimiter, extract };
  throw new DataError(`the tokenizer lacks one of the tokens ${INPUT_TOKENS.join(", ")}`);
}
