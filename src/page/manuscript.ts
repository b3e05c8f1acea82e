/** A text of which some stretches are tokens with probabilities, and what it was before. */
import type { Scored } from "./distribution.ts";

/** A stretch that the model has written, or has judged. Positions are in UTF-16 units. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly logprob: number;
  /** The likeliest tokens in its place, the likeliest first. */
  readonly top: readonly Scored[];
  /** In which go the model wrote it; undefined where it was only judged. */
  readonly go?: number;
}

/** What the text is at one time. */
export interface Draft {
  readonly text: string;
  /** In order. A probability holds as long as what stands before it is what the model has read. */
  readonly stretches: readonly Stretch[];
  readonly caret: number;
}

/** The most steps back. */
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

  /** Takes what somebody has typed: what stands after the change has lost its probabilities. Letters of a word are one step. */
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
  /** What follows can be undone at once. */
  step(): void {
    this.#before.push(this.draft);
    if (this.#before.length > MOST_STEPS) this.#before.shift();
    this.#after = [];
    this.#typing = false;
  }
  /** Puts a text in place of another; the caret stands behind it. @param stretches within the text that is put in */
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

  /** The stretch that the caret stands in, or at whose beginning it stands. */
  at(caret: number): Stretch | undefined {
    return this.draft.stretches.find(({ start, end }) => start <= caret && caret < end);
  }
  /** Where what the model wrote in one go ends, from this stretch on: it was written after this stretch, and for no other. */
  endOf({ start, end, go }: Stretch): number {
    if (go === undefined) return end;
    return Math.max(
      ...this.draft.stretches.filter((next) => next.go === go && next.start >= start).map(({ end }) => end),
    );
  }
}

/** The lists of log-probabilities of `/v1/completions`. */
export interface Lists {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** In code points. */
  readonly text_offset: readonly number[];
}

/** Stretches of a text from the lists that describe it, all of them together. A token that is a part of a character has none. */
export function stretchesOf(text: string, parts: readonly Lists[]): Stretch[] {
  const starts: number[] = []; // of code points, in UTF-16 units
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

/** The likeliest first. */
export const topOf = (top: Readonly<Record<string, number>>): Scored[] =>
  Object.entries(top).map(([token, logprob]) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob);
