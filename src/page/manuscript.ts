/** A text, the probabilities of its tokens, and its earlier versions. */
import type { Scored } from "./distribution.ts";

/** A token that the model generated or scored. Positions are in UTF-16 units. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly logprob: number;
  /** The most likely tokens at this token's position, in descending order of probability. */
  readonly top: readonly Scored[];
  /** Number of the request that generated the token; undefined if the token was only scored. */
  readonly go?: number;
}

/** A version of the text. */
export interface Draft {
  readonly text: string;
  /** Tokens in order. A token's probability is only valid as long as the text before the token is unchanged. */
  readonly stretches: readonly Stretch[];
  readonly caret: number;
}

/** Maximum number of versions for undo. */
const MOST_STEPS = 200;

export class Manuscript {
  draft: Draft = { text: "", stretches: [], caret: 0 };
  #before: Draft[] = [];
  #after: Draft[] = [];
  #typing = false;

  get canUndo(): boolean {
    return this.#before.length > 0;
  }
  get canRedo(): boolean {
    return this.#after.length > 0;
  }

  /**
   * Applies what the user typed. Tokens after the change lose their probabilities. Undo removes all letters of a word
   * at once.
   */
  type(text: string, caret: number): void {
    const { draft: { text: old, stretches } } = this, most = Math.min(text.length, old.length);
    let same = 0;
    while (same < most && text[same] === old[same]) same++;
    if (same === text.length && same === old.length) return;
    const isLetter = text.length === old.length + 1 && /\S/.test(text[same]);
    if (!(this.#typing && isLetter)) this.step();
    this.#typing = isLetter || text.length === old.length + 1;
    this.draft = { text, stretches: stretches.filter(({ end }) => end <= same), caret };
  }
  /** Stores the current version. The next undo returns to it. */
  step(): void {
    this.#before.push(this.draft);
    if (this.#before.length > MOST_STEPS) this.#before.shift();
    this.#after = [];
    this.#typing = false;
  }
  /**
   * Replaces a part of the text and puts the caret after it.
   *
   * @param stretches tokens, with positions in the new part
   */
  replace(from: number, to: number, text: string, stretches: readonly Stretch[] = []): void {
    const { text: old, stretches: all } = this.draft;
    const before = all.filter(({ end }) => end <= from);
    const moved = stretches.map((stretch) => ({ ...stretch, start: stretch.start + from, end: stretch.end + from }));
    this.draft = {
      ...{ text: old.slice(0, from) + text + old.slice(to), stretches: [...before, ...moved] },
      caret: from + text.length,
    };
  }
  undo(): void {
    this.#move(this.#before, this.#after);
  }
  redo(): void {
    this.#move(this.#after, this.#before);
  }
  #move(from: Draft[], to: Draft[]): void {
    const draft = from.pop();
    if (!draft) return;
    to.push(this.draft);
    this.draft = draft;
    this.#typing = false;
  }

  /** The token that begins at the caret or contains it. */
  at(caret: number): Stretch | undefined {
    return this.draft.stretches.find(({ start, end }) => start <= caret && caret < end);
  }
  /** End of the last token that the same request generated. All tokens up to this end depend on the given token. */
  endOf({ start, end, go }: Stretch): number {
    if (go === undefined) return end;
    return Math.max(
      ...this.draft.stretches.filter((next) => next.go === go && next.start >= start).map(({ end }) => end),
    );
  }
}

/** The log-probabilities in an answer of `/v1/completions`. */
export interface Lists {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** Where each token begins, in code points. */
  readonly text_offset: readonly number[];
}

/**
 * Returns the tokens of a text with their positions. A token that is only a part of a character is left out.
 *
 * @param parts the log-probabilities of the text's pieces, in order; a streamed answer has lists in each event
 */
export function stretchesOf(text: string, parts: readonly Lists[]): Stretch[] {
  const starts: number[] = []; // positions of code points, in UTF-16 units
  for (let at = 0; at < text.length; at += text.codePointAt(at)! > 0xffff ? 2 : 1) starts.push(at);
  const unit = (point: number) => starts[point] ?? text.length;
  const offsets = parts.flatMap(({ text_offset }) => text_offset), logprobs = parts.flatMap((l) => l.token_logprobs);
  const tops = parts.flatMap(({ top_logprobs }) => top_logprobs);
  return offsets.flatMap((offset, i) => {
    const start = unit(offset), end = i + 1 < offsets.length ? unit(offsets[i + 1]) : text.length;
    const logprob = logprobs[i], top = topOf(tops[i] ?? {});
    return logprob === null || end <= start ? [] : [{ start, end, logprob, top }];
  });
}

/** Sorts tokens by probability, in descending order. */
export const topOf = (top: Readonly<Record<string, number>>): Scored[] =>
  Object.entries(top).map(([token, logprob]) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob);
