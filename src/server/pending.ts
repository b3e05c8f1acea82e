/** Requests that the worker has, as the engine's thread sees them. */
import type { Piece, PromptScore } from "./engine_api.ts";
import type { Update } from "./messages.ts";
import type { Entry } from "./models.ts";

/** A request until its last answer. */
export interface Pending {
  /** The model that it is about. */ readonly entry?: Entry;
  readonly key?: string;
  /** Texts, or inputs, that are not over. */ left: number;
  hear(update: Update): void;
  fail(error: unknown): void;
}

/** Texts that are being written. */
export class PendingTexts implements Pending {
  #ready: Piece[] = [];
  #failed: { readonly error: unknown } | undefined;
  #wake = () => {};
  readonly #scores = Promise.withResolvers<readonly PromptScore[]>();

  /** @param ended is called with each text that is over */
  constructor(
    readonly entry: Entry,
    readonly key: string | undefined,
    public left: number,
    readonly ended: () => void,
  ) {
    this.#scores.promise.catch(() => {}); // who reads the pieces gets it, too
  }

  get promptLogprobs(): Promise<readonly PromptScore[]> {
    return this.#scores.promise;
  }
  /** What is ready, together, until all is over. @param stop is called at the end, and where the loop is left */
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
