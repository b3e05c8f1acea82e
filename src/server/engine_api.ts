/**
 * What routes ask of the engine: models, texts, embeddings. Types alone: the engine computes in a worker, and routes can be tested
 * without it.
 */
import type { ChatTemplate } from "../data/chat_template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** A model that is served. */
export interface ServedModel {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly ownedBy: string;
  readonly tokenizer: Tokenizer;
  /** How chats are written for it; undefined where it was not tuned to them. */
  readonly template?: ChatTemplate;
  /** Tokens at which a text ends; the engine ends it there. */
  readonly endIds: readonly number[];
  /** The most tokens that it sees at once. */
  readonly blockSize: number;
  readonly vocabSize: number;
  readonly embeddingSize: number;
  /** Id of the key that it belongs to, which alone sees it; undefined: it is everybody's. */
  readonly owner?: string;
  /** Whether its weights are in memory. */
  readonly loaded: boolean;
}

/** One or several texts that go on from one prompt. All numbers have been checked. */
export interface GenerateRequest {
  readonly model: string;
  /** Token ids, at least one, of the vocabulary; with `maxNewTokens` they fit into the block size. */
  readonly prompt: readonly number[];
  /** How many texts. Text i draws from the stream of `seed + i`. */
  readonly count: number;
  /** May be 0 with `promptLogprobs`: then every text ends at once, with `length`. */
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly topK?: number;
  readonly minP?: number;
  /** A safe integer, not below 0. */
  readonly seed: number;
  /** Strings before which a text ends. */
  readonly stop: readonly string[];
  /** Tokens that end a text besides the model's own: a turn's. */
  readonly endIds?: readonly number[];
  /** Whether special tokens are left out of the text (`spoken`): in a chat. */
  readonly spoken?: boolean;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** For how many of the likeliest tokens, beside the chosen one, to give log-probabilities; undefined: not even for that. */
  readonly topLogprobs?: number;
  /** The same for the prompt's tokens, from the second on. */
  readonly promptLogprobs?: number;
  /** Id of the key that asks: for fairness, and for prefixes that are shared within a key alone. */
  readonly key?: string;
  /** Past the block size: begin anew with the later half of the window whenever it is full. Default: refused. */
  readonly overflow?: "slide";
}

/** A token and the logarithm of its probability, in nats, by the model's own distribution. */
export interface ScoredToken {
  readonly id: number;
  readonly logprob: number;
}

/** A token that was chosen. */
export interface PieceToken {
  readonly id: number;
  readonly logprob?: number;
  /** The likeliest tokens, the likeliest first. */
  readonly top?: readonly ScoredToken[];
}

/** What one of the texts has got. */
export interface Piece {
  /** Which of the texts. */
  readonly index: number;
  /** Those that are new: also one that ends the text, and those of a stop string. */
  readonly tokens: readonly PieceToken[];
  /** What is certain of the text now, and new: whole characters, before stop strings. */
  readonly text: string;
  /** With the last piece: why it is the last. */
  readonly finish?: "stop" | "length";
  /** With the first piece: how many of the prompt's tokens stood in the cache, so that they were not computed. */
  readonly cached?: number;
}

/** A token of a prompt. */
export interface PromptScore extends ScoredToken {
  readonly top: readonly ScoredToken[];
  /** Whether it is the likeliest itself. */
  readonly greedy: boolean;
}

/** Texts while they are written. */
export interface Generation {
  /** Pieces of all texts, those that are ready within 20 ms together. Leaving the loop ends the texts. */
  readonly pieces: AsyncIterable<readonly Piece[]>;
  /** Where asked for: one a token of the prompt but the first. It may be there before the first piece. */
  readonly promptLogprobs?: Promise<readonly PromptScore[]>;
}

/** The models, as routes use them. */
export interface Engine {
  /** The models that this key may use, or, without a key, everybody's. */
  models(key?: string): readonly ServedModel[];
  /**
   * Queues a request at once. Aborting the signal, or leaving the loop, takes it out of the queue or ends its texts.
   *
   * @throws {QueueFull} before anything is queued
   * @throws {Draining} when the server goes down
   * @throws {Unavailable} when the model cannot be loaded now
   */
  generate(request: GenerateRequest, signal: AbortSignal): Generation;
  /**
   * The mean of the last hidden states of each input, of `embeddingSize` numbers, not normalised.
   *
   * @param inputs token ids, each at least one and at most the block size
   */
  embed(
    model: string,
    inputs: readonly (readonly number[])[],
    signal: AbortSignal,
    key?: string,
  ): Promise<Float32Array[]>;
  /** What is measured, in Prometheus's text format. */
  metrics(): string;
  readonly health: {
    /** Whether the worker lives. */ readonly alive: boolean;
    /** Whether models are loaded, and steps go on or nothing is to be done. */ readonly ready: boolean;
    /** Milliseconds since the last step ended; 0 where nothing is to be done. */ readonly lastStep: number;
  };
}

/** The queue has no room: the client comes again. */
export class QueueFull extends Error {
  /** Of the class. */ override name = "QueueFull";
  constructor(/** When to come again, in seconds. */ readonly retryAfter: number) {
    super("the queue is full");
  }
}

/** The server goes down, and begins nothing new. */
export class Draining extends Error {
  /** Of the class. */ override name = "Draining";
}

/** A model is listed, and does not fit beside what is busy now. */
export class Unavailable extends Error {
  /** Of the class. */ override name = "Unavailable";
  constructor(/** When to come again, in seconds. */ readonly retryAfter: number) {
    super("the model cannot be loaded now");
  }
}
