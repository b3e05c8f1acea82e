/** Requests that the worker is working on, as the engine's thread sees them. */
import type { Piece, PromptScore } from "./engine_api.ts";
import type { Update } from "./messages.ts";
import type { Entry } from "./models.ts";

/** An unfinished request. */
export interface Pending {
  /** The model that the request uses. */ readonly entry?: Entry;
  readonly key?: string;
  /** Number of texts that are not finished, or of inputs that are not embedded yet. */ left: number;
  hear(update: Update): void;
  fail(error: unknown): void;
}

/** A request for texts that are being generated. */
export class PendingTexts implements Pending {
  #ready: Piece[] = [];
  #failed: { readonly error: unknown } | undefined;
  #wake = () => {};
  readonly #scores = Promise.withResolvers<readonly PromptScore[]>();

  /** @param ended called after each finished text */
  constructor(
    readonly entry: Entry,
    readonly key: string | undefined,
    public left: number,
    readonly ended: () => void,
  ) {
    this.#scores.promise.catch(() => {}); // the reader of the pieces gets the error, too
  }

  get promptLogprobs(): Promise<readonly PromptScore[]> {
    return this.#scores.promise;
  }
  /**
   * Yields all pieces that are ready, until all texts are finished.
   *
   * @param stop called at the end, and when the loop is left
   */
  async *pieces(stop: () => void): AsyncGenerator<readonly Piece[], void, void> {
    try {
      for (;;) {
        if (this.#ready.length > 0) yield this.#ready.splice(0);
        else if (this.#failed) throw this.#failed.error;
        else if (this.left === 0) return;
        else await new Promise<void>((resolve) => this.#wake = resolve);
      }
    } finally {
      stop();
    }
  }
  hear({ pieces, scores }: Update): void {
    if (scores) this.#scores.resolve(scores);
    for (const { finish } of pieces) {
      if (!finish) continue;
      this.left--;
      this.ended();
    }
    this.#ready.push(...pieces);
    this.#wake();
  }
  fail(error: unknown): void {
    this.#failed = { error };
    this.#scores.reject(error);
    this.#wake();
  }
}
