/** An engine without a model, for tests of the protocol. Its texts follow from the request. */
import { Stopping } from "../../src/generate/stopping.ts";
import { spoken } from "../../src/generate/stopping.ts";
import { Access, type AccessOptions } from "../../src/server/auth.ts";
import type {
  Engine,
  GenerateRequest,
  Generation,
  Piece,
  PieceToken,
  PromptScore,
  ServedModel,
} from "../../src/server/engine_api.ts";
import type { ListenOptions } from "../../src/server/listen.ts";
import type { Route } from "../../src/server/routes.ts";
import { serveRoutes } from "../../src/server/server.ts";
import { ChatTemplate } from "../../src/data/chat_template.ts";
import { chatTokenizer } from "../../src/data/chat_template.ts";
import { BytePairTokenizer } from "../../src/tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

/** The vocabulary. The fake engine continues a letter with the next letter, and z with a. */
const LETTERS = "abcdefghijklmnopqrstuvwxyz .,\n";
export const letters = new CharacterTokenizer([...LETTERS], { special: ["<|endoftext|>"] });
export const chats = chatTokenizer(letters, "chatml");
/** A tokenizer with tokens that are parts of characters: é is two tokens, and ☃ is three. */
export const parts = new BytePairTokenizer({
  tokens: ["a", "b", "ab", "\xc3", "\xa9", "\xe2", "\x98", "\x83", "<end>"],
  pattern: /[^]+/gu,
  special: new Map([["<end>", 8]]),
  json: {},
});

export const served = (id: string, tokenizer: Tokenizer, more: Partial<ServedModel> = {}): ServedModel => ({
  ...{ id, created: 1700000000, ownedBy: "local", tokenizer, endIds: [], blockSize: 64, loaded: true },
  ...{ vocabSize: tokenizer.vocabSize, embeddingSize: 4 },
  ...more,
});

/** Returns the token that the fake engine generates after a token. */
const next = (id: number, vocabSize: number) => (id + 1) % Math.min(vocabSize, 26);
/** Returns the log-probability of a token. */
const logprobOf = (id: number) => -(id + 1) / 8;

export class FakeEngine implements Engine {
  /** All requests for texts that the engine received. */
  readonly requests: GenerateRequest[] = [];
  /** Number of aborted requests. */
  left = 0;
  running = 0;
  tokens = 0;
  /** Milliseconds per token. */
  delay = 0;
  /** The value of `tokens` at which texts stop until their requests are aborted. */
  holdAt = Infinity;
  /** An error that the next request throws. */
  refusal: Error | undefined;
  /** An error that texts throw after `after` tokens. */
  failure: { readonly after: number; readonly error: Error } | undefined;
  health = { alive: true, ready: true, lastStep: 0 };
  readonly all: ServedModel[];

  constructor(all?: readonly ServedModel[]) {
    this.all = [
      ...all ?? [
        served("letters", letters, { endIds: [letters.specialTokens!.get("<|endoftext|>")!] }),
        served("chats", chats, { template: ChatTemplate.of(chats)! }),
        served("parts", parts, { endIds: [8] }),
      ],
    ];
  }
  models(key?: string) {
    return this.all.filter(({ owner }) => owner === undefined || owner === key);
  }
  generate(request: GenerateRequest, signal: AbortSignal): Generation {
    if (this.refusal) throw this.refusal;
    this.requests.push(request);
    const { promptLogprobs } = request;
    return {
      pieces: this.#pieces(request, signal),
      ...promptLogprobs !== undefined && { promptLogprobs: Promise.resolve(scoresOf(request.prompt, promptLogprobs)) },
    };
  }
  async *#pieces(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<readonly Piece[]> {
    const model = this.all.find(({ id }) => id === request.model)!, { tokenizer, vocabSize } = model;
    const eosTokenId = [...model.endIds, ...request.endIds ?? []], { stop, count, maxNewTokens, topLogprobs } = request;
    const decoder = request.spoken ? spoken(tokenizer, stop) : tokenizer;
    let whole = false;
    this.running++;
    try {
      for (let index = 0; index < count; index++) {
        if (maxNewTokens === 0) yield [{ index, tokens: [], text: "", finish: "length" }];
        const stopping = new Stopping({ eosTokenId, stopStrings: stop, tokenizer: decoder });
        let id = request.prompt.at(-1)! + index;
        for (let n = 0; n < maxNewTokens && !stopping.over; n++) {
          if (this.delay) await new Promise((resolve) => setTimeout(resolve, this.delay));
          if (this.tokens >= this.holdAt && !signal.aborted) {
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
          }
          if (this.failure && n === this.failure.after) throw this.failure.error;
          if (signal.aborted) throw signal.reason;
          const [bias] = [...request.logitBias].filter(([, value]) => value === 100);
          id = bias?.[0] ?? next(id, vocabSize);
          this.tokens++;
          const { text = "", finishReason: finish } = stopping.take(id, n === maxNewTokens - 1);
          const token: PieceToken = topLogprobs === undefined ? { id } : {
            id,
            logprob: logprobOf(id) - index,
            top: Array.from({ length: topLogprobs }, (_, i) => ({ id: i, logprob: logprobOf(i) })),
          };
          yield [{ index, tokens: [token], text, ...finish && { finish } }];
        }
      }
      whole = true;
    } finally {
      this.running--;
      if (!whole) this.left++;
    }
  }
  embed(_model: string, inputs: readonly (readonly number[])[]) {
    if (this.refusal) throw this.refusal;
    return Promise.resolve(inputs.map((ids) => Float32Array.of(3, 4 * ids.length, 0, 0)));
  }
  metrics() {
    return `nanogpt_generation_tokens_total ${this.tokens}\n`;
  }
}

const scoresOf = (ids: readonly number[], beside: number): PromptScore[] =>
  ids.slice(1).map((id, i) => ({
    ...{ id, logprob: logprobOf(id), greedy: id === ids[i] + 1 },
    top: Array.from({ length: beside }, (_, i) => ({ id: i, logprob: logprobOf(i) })),
  }));

export interface Server {
  readonly url: string;
  readonly port: number;
  readonly engine: FakeEngine;
  /** Errors that the server did not expect. */
  readonly errors: unknown[];
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

/** Runs `body` with a server over a fake engine. */
export async function withServer(
  body: (server: Server) => Promise<void>,
  { access, more, ...listening }: Partial<ListenOptions> & {
    readonly access?: Partial<AccessOptions>;
    readonly more?: readonly Route[];
  } = {},
): Promise<void> {
  const engine = new FakeEngine(), errors: unknown[] = [];
  const options = { port: 0, ...listening, ...more && { more } };
  const at = new Access({ hostname: "127.0.0.1", ...access });
  await using listener = await serveRoutes({ engine, access: at, onError: (error) => errors.push(error) }, options);
  const { port } = listener, url = `http://127.0.0.1:${port}`;
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    fetch(url + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" || body instanceof Uint8Array ? body as BodyInit : JSON.stringify(body),
    });
  await body({ url, port, engine, errors, post, get: (path, headers = {}) => fetch(url + path, { headers }) });
  engine.all.forEach(({ template }) => template?.[Symbol.dispose]());
}

/** The events of a stream, without [DONE]. */
export async function eventsOf(response: Response): Promise<Record<string, unknown>[]> {
  const blocks = (await response.text()).split("\n\n").filter(Boolean);
  return blocks.flatMap((block) => {
    const data = block.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
    return data === undefined || data === "[DONE]" ? [] : [JSON.parse(data)];
  });
}
