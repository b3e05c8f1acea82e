/** Collects what the worker sends, so that everything that is ready within 20 ms goes into one message. */
import type { RowToken } from "../generate/row.ts";
import type { EngineMetrics } from "./metrics.ts";
import type { FromWorker, GrowingPiece, Update } from "./messages.ts";

/** Milliseconds between two messages. */
const TOGETHER = 20;

export class Outbox {
  #updates = new Map<number, Update>();
  #sent = -Infinity;

  constructor(readonly metrics: EngineMetrics, readonly send: (message: FromWorker) => void) {}

  /** Returns the next update of a request. */
  of(of: number): Update {
    let update = this.#updates.get(of);
    if (!update) this.#updates.set(of, update = { of, pieces: [] });
    return update;
  }
  /** Returns the part of a request's next update that is about text `index`. */
  piece(of: number, index: number): GrowingPiece {
    const { pieces } = this.of(of);
    let piece = pieces.find((piece) => piece.index === index);
    if (!piece) pieces.push(piece = { index, tokens: [], text: "" });
    return piece;
  }
  /** Adds a token of a text. */
  token(of: number, index: number, { id, text = "", logprob, topLogprobs, finishReason }: RowToken): void {
    const piece = this.piece(of, index);
    piece.tokens.push({ id, ...logprob !== undefined && { logprob }, ...topLogprobs && { top: topLogprobs } });
    piece.text += text;
    if (finishReason) piece.finish = finishReason;
  }
  /** Discards a request's next update. */
  drop(of: number): void {
    this.#updates.delete(of);
  }
  /** Sends all updates, unless they can wait for the next call, which the caller expects in `next` milliseconds. */
  flush(next = Infinity): void {
    const now = performance.now();
    if (this.#updates.size === 0 || now + next - this.#sent < TOGETHER) return;
    this.#sent = now;
    this.send({ updates: [...this.#updates.values()], metrics: this.metrics });
    this.#updates.clear();
  }
}
