/**
 * A chat with a model. It keeps its messages within the block size, and yields answers as they are generated.
 *
 * The keys and values of earlier messages stay in the cache, so that a turn processes only new tokens. When the chat is
 * too long, the oldest turns are dropped until it takes at most half the block size. All remaining tokens are then
 * processed again.
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

/** Options of a {@linkcode Chat}. */
export interface ChatOptions
  extends Omit<RowOptions, "maxLength" | "overflow" | "tokenizer" | "eosTokenId" | "stopStrings" | "signal"> {
  /** Replaces the model's own chat template. */
  readonly template?: ChatTemplate;
  /** The system message, which comes before the first message. */
  readonly system?: string;
  /** How keys and values are stored: `f32`, the default, or `bf16`. */
  readonly cache?: CacheType;
  /** Called with a line for the user when the oldest turns are dropped for the first time. */
  readonly onNote?: (line: string) => void;
}

/**
 * A chat with a model.
 *
 * @example
 * ```ts ignore
 * const loaded = await loadPretrained("out-chat", { device, inference: true });
 * using chat = await Chat.begin(loaded, { system: "Answer briefly.", temperature: 0.7, topK: 50 });
 * for await (const piece of chat.answer("Who are you?")) console.log(piece);
 * ```
 */
export class Chat implements Disposable {
  /** The messages so far, the system message first. */
  readonly messages: Message[] = [];
  /** Why the last answer ended; undefined if it was interrupted. */
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
   * @throws {ConfigError} if there is no chat template, or the tokenizer does not have the template's special tokens
   * @throws {DataError} if the template fails
   */
  static async begin(loaded: Pretrained, options: ChatOptions = {}): Promise<Chat> {
    const { model, tokenizer, eosTokenIds = [] } = loaded, { template = loaded.chatTemplate } = options;
    if (!template) {
      throw new ConfigError(
        "The model has no chat template, so it was not fine-tuned on conversations; pass the option template",
      );
    }
    const { system: _, template: __, onNote: ___, cache: ____, seed = 1337, maxNewTokens = 256, ...rest } = options;
    const { ids, strings } = await template.endOfTurn(tokenizer),
      generator = options.generator ?? new RandomGenerator(seed);
    const stray = ids.find((id) => id >= model.config.vocabSize);
    if (stray !== undefined) {
      throw new ConfigError(
        `${template.name} ends a turn with ${tokenizer.decode([stray])}, token ${stray}, and the model has ` +
          `${model.config.vocabSize} tokens: fine-tune it with this template first`,
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

  /** Starts a new chat without the earlier messages. `system` is its system message. */
  reset(system: string | undefined = this.options.system): void {
    this.messages.length = 0;
    if (system) this.messages.push({ role: "system", content: system });
  }

  /**
   * Generates the answer to a message, and yields it in pieces without special tokens. If the loop is left or `signal`
   * aborts, the text so far becomes the answer.
   *
   * @throws {DataError} if the message alone is longer than the block size, cannot be encoded, or is refused by the
   *   template; the chat is then unchanged
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

  /** The messages that fit into the block size, without the oldest turns if there are too many, and their ids. */
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
        `The message has ${prompt.length} tokens with the chat template; expected fewer than the model's block size, ${blockSize}`,
      );
    }
    if (messages.length < all.length && !this.#noted) {
      this.#noted = true;
      this.options.onNote?.(
        `The chat is longer than the model's block size, ${blockSize} tokens: its oldest turns are dropped`,
      );
    }
    return { messages, prompt };
  }

  /** Frees the chat's memory. The model and the template belong to the caller. */
  [Symbol.dispose](): void {
    this.#rows[Symbol.dispose]();
  }
}
