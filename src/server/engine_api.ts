/**
 * The interface between routes and the engine: models, texts, embeddings. It is types only, so that routes can be
 * tested without an engine; the engine computes in a worker.
 */
import type { ChatTemplate } from "../data/chat_template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** A model that clients can use. */
export interface ServedModel {
  readonly id: string;
  /** When the model was created, in seconds since 1970. */
  readonly created: number;
  readonly ownedBy: string;
  readonly tokenizer: Tokenizer;
  /** Formats chats for the model; undefined if the model was not trained on chats. */
  readonly template?: ChatTemplate;
  /** Tokens that end a text. */
  readonly endIds: readonly number[];
  /** The model's context length in tokens. */
  readonly blockSize: number;
  readonly vocabSize: number;
  readonly embeddingSize: number;
  /** Id of the key that owns the model, the only one that can use it; undefined: every key can. */
  readonly owner?: string;
  /** Whether the model's weights are in memory. */
  readonly loaded: boolean;
}

/** A request for one or several continuations of a prompt. All its numbers have been validated. */
export interface GenerateRequest {
  readonly model: string;
  /** Token ids, at least one. Together with `maxNewTokens` they fit into the block size, except with `overflow`. */
  readonly prompt: readonly number[];
  /** Number of texts. Text i is sampled with the seed `seed + i`. */
  readonly count: number;
  /** May be 0 with `promptLogprobs`: then every text ends at once, with the reason `length`. */
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly topK?: number;
  readonly minP?: number;
  /** A safe integer, at least 0. */
  readonly seed: number;
  /** Strings that end a text, and are not part of it. */
  readonly stop: readonly string[];
  /** Tokens that end a text in addition to the model's `endIds`, such as the end of a chat's turn. */
  readonly endIds?: readonly number[];
  /** Whether special tokens are left out of the text (`spoken`), as in chats. */
  readonly spoken?: boolean;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /**
   * Number of most likely tokens to return log-probabilities for, in addition to the chosen token; undefined: no
   * log-probabilities at all.
   */
  readonly topLogprobs?: number;
  /** The same number as `topLogprobs`, but for the prompt's tokens from the second on. */
  readonly promptLogprobs?: number;
  /**
   * Id of the client's key. Slots are shared fairly among keys, and cached prefixes are reused by their own key only.
   */
  readonly key?: string;
  /**
   * What to do when a text reaches the block size: `slide` drops the earlier half of the window. Default: an error.
   */
  readonly overflow?: "slide";
}

/** A token and its log-probability, in nats, by the model's own distribution (before temperature and penalties). */
export interface ScoredToken {
  readonly id: number;
  readonly logprob: number;
}

/** A generated token. */
export interface PieceToken {
  readonly id: number;
  readonly logprob?: number;
  /** The most likely tokens, in descending order. */
  readonly top?: readonly ScoredToken[];
}

/** The new part of one of a request's texts. */
export interface Piece {
  /** Index of the text, from 0. */
  readonly index: number;
  /** The new tokens, including one that ends the text and the tokens of a stop string. */
  readonly tokens: readonly PieceToken[];
  /** The new characters. Characters that are incomplete or may belong to a stop string come with a later piece. */
  readonly text: string;
  /** In the last piece: why the text ended. */
  readonly finish?: "stop" | "length";
  /** In the first piece: how many of the prompt's tokens were taken from the cache instead of being computed. */
  readonly cached?: number;
}

/** A token of a prompt, with its log-probability. */
export interface PromptScore extends ScoredToken {
  readonly top: readonly ScoredToken[];
  /** Whether the token is the most likely one. */
  readonly greedy: boolean;
}

/** The texts of a request, while they are generated. */
export interface Generation {
  /** Pieces of all texts. Each list has the pieces of at most 20 ms. Leaving the loop aborts the texts. */
  readonly pieces: AsyncIterable<readonly Piece[]>;
  /** If asked for: one entry for each of the prompt's tokens but the first. May resolve before the first piece. */
  readonly promptLogprobs?: Promise<readonly PromptScore[]>;
}

/** Runs the models. */
export interface Engine {
  /** The models that a key can use; without a key, the models without an owner. */
  models(key?: string): readonly ServedModel[];
  /**
   * Queues a request. Aborting the signal, or leaving the loop over `pieces`, removes it from the queue or ends its
   * texts.
   *
   * @throws {QueueFull} if the queue has no room; nothing is queued then
   * @throws {Draining} if the server is shutting down
   * @throws {Unavailable} if the model does not fit beside the models in use
   */
  generate(request: GenerateRequest, signal: AbortSignal): Generation;
  /**
   * The mean of each input's final hidden states: `embeddingSize` numbers, not normalised.
   *
   * @param inputs token ids: at least one, at most the block size, for each input
   */
  embed(
    model: string,
    inputs: readonly (readonly number[])[],
    signal: AbortSignal,
    key?: string,
  ): Promise<Float32Array[]>;
  /** Metrics in Prometheus's text format. */
  metrics(): string;
  readonly health: {
    /** Whether the worker is running. */ readonly alive: boolean;
    /** Whether requests are accepted, and no step has been running for 30 s or more. */ readonly ready: boolean;
    /** Milliseconds since the last step ended; 0 if there is nothing to do. */ readonly lastStep: number;
  };
}

/** Thrown if the queue has no room. The client may retry. */
export class QueueFull extends Error {
  /** The class's name. */ override name = "QueueFull";
  constructor(/** Seconds after which to retry. */ readonly retryAfter: number) {
    super("the queue is full");
  }
}

/** Thrown if the server is shutting down and accepts no new requests. */
export class Draining extends Error {
  /** The class's name. */ override name = "Draining";
}

/** Thrown if a model cannot be loaded because it does not fit beside the models in use. */
export class Unavailable extends Error {
  /** The class's name. */ override name = "Unavailable";
  constructor(/** Seconds after which to retry. */ readonly retryAfter: number) {
    super("the model cannot be loaded now");
  }
}
