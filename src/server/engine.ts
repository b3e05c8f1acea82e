/** What the routes ask of the engine: texts that models write, their embeddings, and how it goes. Its models run in a worker. */
import type { ChatTemplate } from "../data/chat_template.ts";
import type { FinishReason } from "../generate/stopping.ts";
import type { PromptToken, TokenLogprob } from "../generate/row.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { EngineMetrics } from "./metrics.ts";

/** A model that is served. */
export interface ServedModel {
  /** What requests call it. */ readonly id: string;
  /** When it was first served, or tuned, in seconds since 1970. */ readonly created: number;
  /** Who made it, as `/v1/models` says. */ readonly ownedBy: string;
  /** What its ids mean. */ readonly tokenizer: Tokenizer;
  /** How chats are written for it; undefined: it was not tuned to chats. */ readonly template?: ChatTemplate;
  /** Tokens at which a text ends, where a request names none. */ readonly ends: readonly number[];
  /** The most tokens that it sees at once. */ readonly blockSize: number;
  /** Ids that a prompt may have are below it. */ readonly vocabSize: number;
  /** Length of an embedding. */ readonly embeddingSize: number;
  /** Of a tuned model the id of the key that it belongs to; undefined: everybody's. */ readonly owner?: string;
  /** Whether it is in memory. */ readonly loaded: boolean;
}

/** Texts that go on from a prompt. Numbers are those of `Rows`; a token is drawn by Philox of the seed and its number in the text. */
export interface GenerateRequest {
  /** A served model's id. */ readonly model: string;
  /** Token ids, at least one. */ readonly prompt: readonly number[];
  /** How many texts; the prompt is read once. Text i has the seed `seed + i`. */ readonly count: number;
  /** Of each text at the most; 0 only scores the prompt. */ readonly maxNewTokens: number;
  /** Default 1; 0 takes the likeliest. */ readonly temperature?: number;
  /** Default 1. */ readonly topP?: number;
  /** Default 0: all. */ readonly topK?: number;
  /** Default 0. */ readonly minP?: number;
  /** Default: one that is drawn. */ readonly seed?: number;
  /** Texts end before these. */ readonly stop?: readonly string[];
  /** Tokens that end a text, instead of the model's {@linkcode ServedModel.ends}. */ readonly ends?: readonly number[];
  /** Whether special tokens are no part of the text, as in the answer of a chat. Default false. */ readonly spoken?:
    boolean;
  /** Added to logits, by token id. */ readonly logitBias?: ReadonlyMap<number, number>;
  /** Default 0. */ readonly frequencyPenalty?: number;
  /** Default 0. */ readonly presencePenalty?: number;
  /** Log-probabilities of the tokens, and of so many of the likeliest beside each. */ readonly topLogprobs?: number;
  /** The same of the prompt's tokens, from the second on. */ readonly promptLogprobs?: number;
  /**
   * Past the block size: `refuse`, the default, throws before anything is generated; `slide` begins anew with the later half of the
   * window whenever it is full.
   */
  readonly overflow?: "refuse" | "slide";
  /** Who asks: keys take turns, and share no prefixes. */ readonly key?: string;
}

/** A token of a text. */
export interface PieceToken {
  /** Of the token. */ readonly id: number;
  /** The token's own text: U+FFFD where it is a part of a character. */ readonly text: string;
  /** In nats, where asked for. */ readonly logprob?: number;
  /** The likeliest, the likeliest first, where asked for. */ readonly top?: readonly TokenLogprob[];
}

/** What has been written of a text since the piece before. */
export interface Piece {
  /** Which of the request's texts, from 0. */ readonly index: number;
  /** The last one is what ended the text, a stop token too. */ readonly tokens: readonly PieceToken[];
  /** What may be shown now: whole characters, before stops. Put together, the text. */ readonly text: string;
  /** With a text's last piece. */ readonly finish?: FinishReason;
  /** With a text's first piece: how many of the prompt's tokens were not computed, for they stood in the cache. */
  readonly cached?: number;
}

/** Texts that are being written. */
export interface Generation {
  /** With `promptLogprobs`: of the prompt's tokens, from the second on. Rejects as `pieces` does. */
  readonly promptLogprobs?: Promise<readonly PromptToken[]>;
  /**
   * What has become ready within 20 ms, together, until all texts are over; to leave the loop aborts them.
   *
   * @throws {DeviceError} when the device fails, or lacks memory for what is asked
   * @throws {ConfigError} when an option is out of range, or every token is banned
   * @throws what the signal was aborted with
   */
  readonly pieces: AsyncIterable<readonly Piece[]>;
}

/** How it goes. */
export interface Health {
  /** Whether the worker runs. */ readonly alive: boolean;
  /** Whether requests are taken: models are loaded, and steps come to their end. */ readonly ready: boolean;
  /** Milliseconds since the last step ended, or since there was nothing to do. */ readonly lastStep: number;
}

/** The models and their scheduler. */
export interface Engine extends AsyncDisposable {
  /** Those that a key may use: everybody's, and its own. */
  models(key?: string): readonly ServedModel[];
  /**
   * Begins texts. They wait for a slot in the order in which they came; where others wait, a key has at most half of the slots.
   *
   * @throws {QueueFull} when too many texts wait
   * @throws {Draining} when the engine takes nothing new
   * @throws {ConfigError} when there is no such model, or the prompt is empty or, with what is asked for, longer than the block size
   */
  generate(request: GenerateRequest, signal: AbortSignal): Generation;
  /**
   * The mean of the final hidden states of each input, of length 1: its embedding.
   *
   * @throws as {@linkcode Engine.generate}
   */
  embed(
    model: string,
    inputs: readonly (readonly number[])[],
    options: { signal: AbortSignal; key?: string },
  ): Promise<Float32Array[]>;
  /** What was counted up to the last message of the worker, at most 20 ms ago. */
  metrics(): EngineMetrics;
  /** How it goes. */
  readonly health: Health;
  /** Takes nothing new, and resolves when all is written, or after so many milliseconds, when the rest is aborted. */
  drain(ms: number): Promise<void>;
}

/** Too many texts wait; a client comes again. */
export class QueueFull extends Error {
  /** Of the class. */ override name = "QueueFull";
  /** @param retryAfter in seconds, by how fast texts have been written */
  constructor(readonly retryAfter: number) {
    super(`Too many requests wait; try again in ${retryAfter} s`);
  }
}

/** The engine ends. */
export class Draining extends Error {
  /** Of the class. */ override name = "Draining";
  constructor() {
    super("The server is shutting down");
  }
}
