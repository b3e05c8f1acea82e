/** A text of a request. Used in the worker. */
import type { Row, RowRequest } from "../generate/row.ts";
import type { GenerateRequest } from "./engine_api.ts";
import type { Where } from "./metrics.ts";
import type { Served } from "./served.ts";

export class Text {
  row: Row | undefined;
  /** When its last token was generated, by `Date.now()`; 0 before the first. */
  last = 0;
  over = false;

  constructor(
    /** The request's number. */ readonly of: number,
    readonly index: number,
    readonly request: GenerateRequest,
    readonly model: { readonly served: Served; readonly adapter: number },
    /** When the request arrived, in milliseconds since 1970. */ readonly arrived: number,
  ) {}

  get served(): Served {
    return this.model.served;
  }
  get where(): Where {
    return !this.row ? "queued" : this.last === 0 ? "prompt" : "decode";
  }
  /** Gives the text a slot. @throws what `Rows.add` throws */
  begin(): void {
    const { index, request, model: { served, adapter } } = this;
    const { model: _, count: __, seed, stop, endIds = [], spoken = false, logitBias, key = "", ...rest } = request;
    const row: RowRequest = {
      ...rest,
      draws: "philox",
      seed: seed + index,
      stopStrings: stop,
      eosTokenId: [...served.info.endIds, ...endIds],
      tokenizer: served.decoding(stop, spoken),
      logitBias: logitBias.size > 0 ? Object.fromEntries(logitBias) : undefined,
      promptLogprobs: index === 0 ? request.promptLogprobs : undefined,
      overflow: request.overflow ?? "refuse",
      shares: key,
      tag: adapter,
    };
    this.row = served.rows.add(row);
  }
}
