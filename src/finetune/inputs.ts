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
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

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
 * The tokens of a row. What is longer than `maxLength` loses its end: of two texts in GPT-1's form, each has half of the room, and
 * in transformers' form the pair goes first; of a context and its choice, the context.
 *
 * @throws {DataError} when the row has not the texts that the kind needs, or none that has a token
 */
export function inputsOf(
  example: HeadExample | Omit<HeadExample, "label">,
  { kind, tokenizer, maxLength, tokens }: InputOptions,
): Inputs {
  const { where } = example, row = example as { text?: string; pair?: string; context?: string; choices?: string[] };
  let cut = false;
  const encode = (text: string) => tokenizer.encode(text, { disallowedSpecial: new Set() });
  const within = (ids: Int32Array, room: number) => {
    cut ||= ids.length > room;
    return ids.subarray(0, Math.max(0, room));
  };
  const joined = (...parts: ArrayLike<number>[]) => Int32Array.from(parts.flatMap((part) => Array.from(part)));
  const marked = (first: Int32Array, second?: Int32Array) => {
    const { start, delimiter, extract } = tokens!, room = Math.floor(maxLength / 2) - 2;
    return second
      ? joined([start], within(first, room), [delimiter], within(second, room), [extract])
      : joined([start], within(first, maxLength - 2), [extract]);
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
        const ids = within(encode(choice), Math.ceil(maxLength / 2));
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
