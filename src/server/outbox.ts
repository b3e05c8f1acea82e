/** What the worker has to tell, gathered so that what is ready within 20 ms goes in one message. */
import type { RowToken } from "../generate/row.ts";
import type { EngineMetrics } from "./metrics.ts";
import type { FromWorker, GrowingPiece, Update } from "./messages.ts";

/** Milliseconds. */
const TOGETHER = 20;

export class Outbox {
  #updates = new Map<number, Update>();
  #sent = -Infinity;

  constructor(readonly metrics: EngineMetrics, readonly send: (message: FromWorker) => void) {}

  /** The next update of a request. */
  of(of: number): Update {
    let update = this.#updates.get(of);
    if (!update) this.#updates.set(of, update = { of, pieces: [] });
    return update;
  }
  /** The part of that update that is about one of the request's texts. */
  piece(of: number, index: number): GrowingPiece {
    const { pieces } = this.of(of);
    let piece = pieces.find((piece) => piece.index === index);
    if (!piece) pieces.push(piece = { index, tokens: [], text: "" });
    return piece;
  }
  /** A token more of a text. */
  token(of: number, index: number, { id, text = "", logprob, topLogprobs, finishReason }: RowToken): void {
    const piece = this.piece(of, index);
    piece.tokens.push({ id, ...logprob !== undefined && { logprob }, ...topLogprobs && { top: topLogprobs } });
    piece.text += text;
    if (finishReason) piece.finish = finishReason;
  }
  /** Discards what was gathered for a request. */
  drop(of: number): void {
    this.#updates.delete(of);
  }
  /** Sends what was gathered, unless it can wait: the next call comes within `next` milliseconds. */
  flush(next = Infinity): void {
    const now = performance.now();
    if (this.#updates.size === 0 || now + next - this.#sent < TOGETHER) return;
    this.#sent = now;
    this.send({ updates: [...this.#updates.values()], metrics: this.metrics });
    this.#updates.clear();
  }
}
