/**
 * A chat with a model: its messages, which stay within what the model sees, and answers that come as they are written.
 *
 * Keys and values of the chat so far stay in their slot, so that a turn reads what is new. Where the chat has grown too long, the oldest
 * turns go, down to half of what the model sees: each time that they go all is read again.
 */
import type { ChatTemplate } from "../data/chat_template.ts";
import type { Message } from "../data/examples.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { RowOptions } from "../generate/options.ts";
import { Rows } from "../generate/rows.ts";
import { type FinishReason, spoken } from "../generate/stopping.ts";
import type { CacheType } from "../nn/cache.ts";
import { RandomGenerator } from "../random/mod.ts";
import type { Pretrained } from "./load.ts";

/** How a {@linkcode Chat} answers. */
export interface ChatOptions
  extends Omit<RowOptions, "maxLength" | "overflow" | "tokenizer" | "eosTokenId" | "stopStrings" | "signal"> {
  /** Instead of the model's own. */
  readonly template?: ChatTemplate;
  /** The system message, which the model reads first. */
  readonly system?: string;
  /** How keys and values are stored: `f32`, the default, or `bf16`. */
  readonly cache?: CacheType;
  /** Takes a line when the oldest turns go for the first time. */
  readonly onNote?: (line: string) => void;
}

/**
 * A chat.
 *
 * @example
 * ```ts ignore
 * const loaded = await loadPretrained("out-chat", { device, inference: true });
 * using chat = await Chat.begin(loaded, { system: "Answer briefly.", temperature: 0.7, topK: 50 });
 * for await (const piece of chat.answer("Who are you?")) console.log(piece);
 * ```
 */
export class Chat implements Disposable {
  /** What was said so far, the system message first. */
  readonly messages: Message[] = [];
  /** Why the last answer ended; undefined where it was stopped. */
  finishReason: FinishReason | undefined;
  readonly #rows: Rows;
  readonly #row: RowOptions & { readonly maxNewTokens: number };
  #noted = false;

  private constructor(
    readonly loaded: Pretrained,
    readonly template: ChatTemplate,
    readonly options: ChatOptions,
    row: RowOptions & { readonly maxNewTokens: number },
  ) {
    this.#rows = new Rows(loaded.model, { slots: 1, reuse: true, cache: options.cache });
    this.#row = row;
    this.reset();
  }

  /**
   * Begins a chat.
   *
   * @throws {ConfigError} when the model has no chat template, and none is given, or no tokens that it is written with
   * @throws {DataError} when the template fails
   */
  static async begin(loaded: Pretrained, options: ChatOptions = {}): Promise<Chat> {
    const { model, tokenizer, eosTokenIds = [] } = loaded, { template = loaded.chatTemplate } = options;
    if (!template) throw new ConfigError("The model has no chat template: it was not tuned to chats; name a template");
    const { system: _, template: __, onNote: ___, cache: ____, seed = 1337, maxNewTokens = 256, ...rest } = options;
    const { ids, strings } = await template.endOfTurn(tokenizer),
      generator = options.generator ?? new RandomGenerator(seed);
    const stray = ids.find((id) => id >= model.config.vocabSize);
    if (stray !== undefined) {
      throw new ConfigError(
        `${template.name} ends a turn with ${tokenizer.decode([stray])}, token ${stray}, and the model has ` +
          `${model.config.vocabSize}: tune it with this template first`,
      );
    }
    return new Chat(loaded, template, options, {
      ...rest,
      maxNewTokens,
      ...rest.draws === "philox" ? { seed } : { generator },
      tokenizer: spoken(tokenizer, strings),
      eosTokenId: [...new Set([...ids, ...eosTokenIds])],
      stopStrings: strings,
    });
  }

  /** Forgets what was said; `system` is the system message from now on. */
  reset(system: string | undefined = this.options.system): void {
    this.messages.length = 0;
    if (system) this.messages.push({ role: "system", content: system });
  }

  /**
   * The answer to a message, in pieces as they come, without special tokens. What was written of it, where the loop is left or `signal` aborts, stays as the
   * answer.
   *
   * @throws {DataError} when the message alone is longer than what the model sees, cannot be encoded, or is refused by the template; the
   *   chat is then as it was
   */
  async *answer(content: string, { signal }: { signal?: AbortSignal } = {}): AsyncGenerator<string, void, void> {
    const { blockSize } = this.loaded.model.config, { maxNewTokens } = this.#row;
    const { messages, prompt } = await this.#fit([...this.messages, { role: "user", content }]);
    const left = Math.min(maxNewTokens, blockSize - prompt.length);
    const row = this.#rows.add({ ...this.#row, prompt, maxNewTokens: left, signal });
    this.messages.splice(0, Infinity, ...messages);
    this.finishReason = undefined;
    let said = "";
    try {
      for await (const { text = "", finishReason } of row) {
        said += text;
        this.finishReason = finishReason;
        if (text) yield text;
      }
    } finally {
      row.abort();
      this.messages.push({ role: "assistant", content: said });
    }
  }

  /** The messages that the model can see, without the oldest turns where there are too many, and their ids. */
  async #fit(all: readonly Message[]): Promise<{ messages: Message[]; prompt: number[] }> {
    const { tokenizer, model: { config: { blockSize } } } = this.loaded, { maxNewTokens } = this.#row;
    const encode = (messages: readonly Message[]) =>
      this.template.ids(tokenizer, messages, { addGenerationPrompt: true, contents: "text" });
    const before = all[0].role === "system" ? 1 : 0, messages = [...all];
    let prompt = await encode(messages);
    if (prompt.length + Math.min(maxNewTokens, blockSize >> 2) > blockSize) {
      while (prompt.length > blockSize >> 1 && messages.length > before + 1) {
        const next = messages.findIndex(({ role }, i) => i > before && role === "user");
        messages.splice(before, next - before);
        prompt = await encode(messages);
      }
    }
    if (prompt.length >= blockSize) {
      throw new DataError(
        `The message has ${prompt.length} tokens with what the template adds, and the model sees ${blockSize}`,
      );
    }
    if (messages.length < all.length && !this.#noted) {
      this.#noted = true;
      this.options.onNote?.(
        `The chat is longer than the ${blockSize} tokens that the model sees: the oldest turns go first`,
      );
    }
    return { messages, prompt };
  }

  /** Ends it; the model and its template are the caller's. */
  [Symbol.dispose](): void {
    this.#rows[Symbol.dispose]();
  }
}
