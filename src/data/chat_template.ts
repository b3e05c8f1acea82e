/**
 * Turns chats into token ids: a template renders the messages to text, the tokenizer encodes the text, and a mask marks
 * the ids that the assistant writes.
 *
 * Templates are written as for transformers (https://huggingface.co/docs/transformers/chat_templating): Jinja with
 * `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`, `raise_exception`, `strftime_now` and `tojson`.
 */
import { ConfigError, DataError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { splitAt, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { BUILT_IN_CHATS, type BuiltInChat, type ChatPart } from "./built_in_chats.ts";
import { type Rendering, type TemplateLimits, TemplateWorker } from "./chat_worker.ts";
import type { Message, TemplateExtras } from "./examples.ts";

/** Options for rendering a chat. */
export interface RenderOptions extends TemplateExtras {
  /** Whether to append the text that opens an assistant's turn, for the model to answer. Default: false. */
  readonly addGenerationPrompt?: boolean;
  /**
   * Whether to leave the last message open, without the text that ends its turn, so that the model continues it.
   * Default: false.
   */
  readonly continueFinalMessage?: boolean;
  /**
   * How special tokens inside messages are encoded. `tokens`, the default, encodes them as special tokens, as in
   * transformers. `text` encodes them as ordinary text, so that the content of a message cannot end the turn and begin
   * another one; transformers calls this `sanitize_control_tokens`.
   */
  readonly contents?: "tokens" | "text";
  /** The time that `strftime_now` formats. Default: the current time; pass a fixed time for reproducible output. */
  readonly now?: Date;
}

/** Options of {@linkcode ChatTemplate}. */
export interface ChatTemplateOptions extends TemplateLimits {
  /** Name of the template in error messages. Default: "The chat template". */
  readonly name?: string;
  /** Variables of the template that hold special tokens: `bos_token`, `eos_token`, … */
  readonly specialTokens?: Readonly<Record<string, unknown>>;
}

/** A chat as token ids. */
export interface EncodedChat {
  /** Token ids of the whole chat. */
  readonly ids: number[];
  /** For each id, whether the assistant writes it. */
  readonly assistant: boolean[];
}

/** How the end of an assistant's turn is recognised. */
export interface EndOfTurn {
  /** Special tokens that end the turn. */
  readonly ids: readonly number[];
  /** Texts that end the turn, if no special token does. */
  readonly strings: readonly string[];
}

/**
 * A chat template. The built-in templates (ChatML, plain, nanochat) are rendered in the calling thread. Any other
 * template is rendered in a worker with limited memory and time. The first rendering starts the worker; `using` or the
 * end of the process ends it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { ChatTemplate, chatTokenizer } from "@nanogpt/ts/data";
 * import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
 *
 * const tokenizer = chatTokenizer(CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz\n"), "chatml");
 * using template = ChatTemplate.of(tokenizer)!;
 * const messages = [{ role: "user", content: "hi" }, { role: "assistant", content: "ho" }];
 * assertEquals(await template.render(messages), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n");
 * const { ids, assistant } = await template.encode(tokenizer, messages);
 * assertEquals(tokenizer.decode(ids.filter((_, i) => assistant[i])), "ho<|im_end|>");
 * ```
 */
export class ChatTemplate implements Disposable {
  /** The template's text, in Jinja. */
  readonly source: string;
  /** Name of the template in error messages. */
  readonly name: string;
  readonly #special: Readonly<Record<string, unknown>>;
  readonly #builtIn: BuiltInChat | undefined;
  readonly #worker: TemplateWorker;
  readonly #marked: string;

  /**
   * Makes a template. The text is parsed when it is first rendered, so a syntax error is reported then.
   *
   * @param source the template's text, in Jinja
   */
  constructor(source: string, { name = "The chat template", specialTokens = {}, ...limits }: ChatTemplateOptions = {}) {
    this.source = source;
    this.name = name;
    this.#special = specialTokens;
    this.#builtIn = Object.values(BUILT_IN_CHATS).find((chat) => chat.source === source);
    this.#worker = new TemplateWorker(limits);
    this.#marked = source.replace(
      GENERATION,
      (_, left, end, right) => `{%${left} if true %}{{ generation_${end ? "ends" : "begins"} }}{% endif ${right}%}`,
    );
  }

  /**
   * The template that a tokenizer was loaded with or that {@linkcode chatTokenizer} gave it; undefined if the tokenizer
   * has no template.
   */
  static of(tokenizer: Pick<Tokenizer, "toJSON">, options: ChatTemplateOptions = {}): ChatTemplate | undefined {
    const { chat_template, special_tokens } = tokenizer.toJSON();
    if (typeof chat_template !== "string") return;
    return new ChatTemplate(chat_template, {
      specialTokens: isObject(special_tokens) ? special_tokens : {},
      ...options,
    });
  }

  /**
   * Renders a chat to text.
   *
   * @throws {DataError} when the template rejects the messages, fails, or exceeds a limit; the message says why
   */
  async render(messages: readonly Message[], options: RenderOptions = {}): Promise<string> {
    if (options.continueFinalMessage) return await this.#unfinished(messages, options);
    const chat = this.#checked(messages), prompt = options.addGenerationPrompt ?? false;
    if (this.#builtIn) return joined(this.#builtInParts(chat, prompt));
    return (await this.#render(chat, options, [{ count: chat.length, prompt }]))[0];
  }

  /**
   * Renders a chat whose last message stays open, as transformers does: a tag is appended to the message, and the
   * rendered text is cut at the tag. The tag is followed by a space. If the space is missing in the rendered text, the
   * template trims messages.
   */
  async #unfinished(messages: readonly Message[], options: RenderOptions): Promise<string> {
    if (options.addGenerationPrompt) {
      throw new ConfigError(
        "addGenerationPrompt begins a new message and continueFinalMessage continues the last one: pass one of them",
      );
    }
    const tag = `\ue003${crypto.randomUUID()}`,
      last = messages.at(-1)!,
      tagged = { ...last, content: `${last?.content}${tag} ` };
    const text = await this.render(messages.toSpliced(-1, 1, tagged), { ...options, continueFinalMessage: false });
    const at = text.lastIndexOf(tag), before = text.slice(0, at);
    if (at < 0) throw new DataError(`${this.name} does not write the last message, so it cannot be continued`);
    return text[at + tag.length] === " " ? before : before.trimEnd();
  }

  /**
   * The text of a chat in pieces; each piece says whether the assistant writes it. If the template has `{% generation
   * %}` blocks, the assistant's pieces are the texts in these blocks. Otherwise they are the text that each message of
   * the assistant adds to the text of the messages before it.
   *
   * @throws {DataError} as {@linkcode render}, and when a template without `{% generation %}` renders the first messages
   *   of a chat differently if more messages follow
   */
  async parts(messages: readonly Message[], options: RenderOptions = {}): Promise<ChatPart[]> {
    const chat = this.#checked(messages), prompt = options.addGenerationPrompt ?? false;
    if (this.#builtIn) return this.#builtInParts(chat, prompt);
    return this.#marked === this.source
      ? await this.#byPrefixes(chat, options, prompt)
      : await this.#byMarks(chat, options, prompt);
  }

  /**
   * The ids of a chat, including special tokens, and which of the ids the assistant writes. A token that overlaps one
   * of the assistant's pieces counts as written by the assistant.
   *
   * @throws {DataError} as {@linkcode parts}, and when the tokenizer cannot encode the text
   */
  async encode(
    tokenizer: Tokenizer,
    messages: readonly Message[],
    options: RenderOptions = {},
  ): Promise<EncodedChat> {
    const [chat, mark] = withMarks(tokenizer, messages, options);
    return encodeParts(tokenizer, await this.parts(chat, options), mark);
  }

  /**
   * The ids of a chat, without the assistant's mask. Unlike {@linkcode encode}, this works with every template.
   *
   * @throws {DataError} as {@linkcode render}, and when the tokenizer cannot encode the text
   */
  async ids(tokenizer: Tokenizer, messages: readonly Message[], options: RenderOptions = {}): Promise<number[]> {
    const [chat, mark] = withMarks(tokenizer, messages, options);
    return encodeText(tokenizer, await this.render(chat, options), mark);
  }

  /**
   * Determines how an assistant's turn ends, by rendering a short chat. If the first token after the assistant's message
   * is a special token, the turn ends with that token. Otherwise it ends with the text between the assistant's message
   * and the user's next message.
   *
   * @throws {DataError} as {@linkcode render}, and when the template changes the text of an assistant's message
   */
  async endOfTurn(tokenizer: Tokenizer): Promise<EndOfTurn> {
    const [asked, answered, next] = ["ping", "pong", "next"].map((word) => `${word}${crypto.randomUUID()}`);
    const text = await this.render([
      { role: "user", content: asked },
      { role: "assistant", content: answered },
      { role: "user", content: next },
    ]);
    if (!text.includes(answered)) {
      throw new DataError(
        `${this.name} changes the text of the assistant's message, so the end of the assistant's turn is not known`,
      );
    }
    const begin = text.indexOf(answered) + answered.length, end = text.indexOf(next, begin);
    const between = text.slice(begin, end < 0 ? undefined : end), special = tokenizer.specialTokens ?? new Map();
    const first = [...special.keys()].filter((token) => between.trimStart().startsWith(token));
    const [longest] = first.sort((a, b) => b.length - a.length);
    if (longest !== undefined) return { ids: [special.get(longest)!], strings: [] };
    return { ids: [], strings: between ? [between.trimEnd() || between] : [] };
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#worker[Symbol.dispose]();
  }

  #checked(messages: readonly Message[]): Message[] {
    if (messages.length === 0) throw new DataError("A chat has at least one message, and this one is empty");
    return messages.map((message, i) => {
      if (typeof message?.role !== "string") throw new DataError(`Message ${i + 1} of a chat has no role`);
      const said = Object.entries(message).filter(([, value]) => value !== null && value !== undefined);
      // Without null fields, as in transformers, because templates test whether a field is defined.
      return Object.fromEntries(said) as unknown as Message;
    });
  }

  #builtInParts(messages: readonly Message[], prompt: boolean): ChatPart[] {
    const { eos_token = "<|endoftext|>" } = this.#special, parts = this.#builtIn === BUILT_IN_CHATS.nanochat;
    for (const [i, { content, role }] of messages.entries()) {
      if (typeof content === "string" || parts && role === "assistant" && areParts(content)) continue;
      throw new DataError(`${this.name}: the content of message ${i + 1} (role ${role}) is not a text`);
    }
    return this.#builtIn!.parts(messages, { prompt, eos: String(eos_token), name: this.name });
  }

  #render(messages: readonly Message[], options: RenderOptions, renderings: Rendering[]): Promise<string[]> {
    const { tools = null, variables, now } = options;
    const all = { documents: null, ...this.#special, ...variables, tools, messages };
    return this.#worker.render({ name: this.name, source: this.#marked, variables: all, renderings, now });
  }

  async #byMarks(messages: readonly Message[], options: RenderOptions, prompt: boolean): Promise<ChatPart[]> {
    const key = crypto.randomUUID(), marks = [`\ue000${key}`, `\ue001${key}`] as const, count = messages.length;
    const [marked, text] = await this.#render(messages, options, [{ count, prompt, marks }, { count, prompt }]);
    const parts: ChatPart[] = [];
    for (const [i, piece] of marked.split(marks[0]).entries()) {
      const [inside, ...after] = piece.split(marks[1]);
      // Without exactly one closing mark in each piece, the comparison below fails.
      if (after.length !== Math.min(i, 1)) break;
      if (i === 0) parts.push({ text: inside, assistant: false });
      else parts.push({ text: inside, assistant: true }, { text: after[0], assistant: false });
    }
    if (joined(parts) === text) return parts.filter((part) => part.text !== "");
    throw new DataError(
      `${this.name} changes the text in {% generation %} after writing it, so what the assistant writes is not known`,
    );
  }

  async #byPrefixes(messages: readonly Message[], options: RenderOptions, prompt: boolean): Promise<ChatPart[]> {
    const turns = messages.flatMap(({ role }, i) => role === "assistant" ? [i] : []), count = messages.length;
    const texts = await this.#render(messages, options, [
      ...turns.flatMap((i) => [...(i > 0 ? [{ count: i, prompt: true }] : []), { count: i + 1, prompt: false }]),
      { count, prompt },
    ]);
    const text = texts.at(-1)!, parts: ChatPart[] = [];
    if (turns[0] === 0) texts.unshift("");
    let at = 0;
    for (const [k, i] of turns.entries()) {
      const [before, after] = texts.slice(2 * k, 2 * k + 2);
      if (!text.startsWith(after) || !after.startsWith(before) || before.length < at) {
        throw new DataError(
          `${this.name} has no {% generation %}, and writes the chat up to message ${
            i + 1
          } differently when more messages follow, ` +
            "so what the assistant writes is not known",
        );
      }
      parts.push({ text: text.slice(at, before.length), assistant: false });
      parts.push({ text: text.slice(before.length, at = after.length), assistant: true });
    }
    return [...parts, { text: text.slice(at), assistant: false }].filter((part) => part.text !== "");
  }
}

/** The block tags `{% generation %}` and `{% endgeneration %}`, which transformers adds to Jinja. */
const GENERATION = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

const joined = (parts: readonly ChatPart[]): string => parts.map(({ text }) => text).join("");

const areParts = (content: unknown): boolean =>
  Array.isArray(content) && content.every((part) => isObject(part) && typeof part.text === "string");

/**
 * The messages, with a mark inserted into every special token in their contents. The mark makes `encodeText` encode the
 * token as ordinary text.
 *
 * @returns the messages, and the mark if it was needed
 */
function withMarks(
  { specialTokens = new Map() }: Tokenizer,
  messages: readonly Message[],
  { contents = "tokens" }: RenderOptions,
): [messages: readonly Message[], mark?: string] {
  if (contents === "tokens" || specialTokens.size === 0) return [messages];
  const mark = `\ue002${crypto.randomUUID()}`, tokens = [...specialTokens.keys()];
  const marked = (value: unknown): unknown => {
    if (typeof value === "string") {
      return splitAt(value, tokens).map(([part, isToken]) => isToken ? [...part].toSpliced(1, 0, mark).join("") : part)
        .join("");
    }
    if (Array.isArray(value)) return value.map(marked);
    if (!isObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, of]) => [name, marked(of)]));
  };
  return [messages.map((message) => ({ ...marked(message) as Message, role: message.role })), mark];
}

/**
 * Encodes a text with its special tokens. A special token that contains the mark is encoded as ordinary text, without
 * the mark.
 */
function encodeText(tokenizer: Tokenizer, text: string, mark?: string): number[] {
  const special = tokenizer.specialTokens;
  if (mark === undefined || !special) return Array.from(tokenizer.encode(text, { allowedSpecial: "all" }));
  return splitAt(text, [...special.keys()]).flatMap(([part, isToken]) =>
    isToken ? [special.get(part)!] : [...tokenizer.encode(part.replaceAll(mark, ""), { disallowedSpecial: new Set() })]
  );
}

/**
 * Encodes the pieces of a chat, and marks the tokens that the assistant writes.
 * @throws {DataError} when the tokenizer cannot encode the text
 */
export function encodeParts(tokenizer: Tokenizer, parts: readonly ChatPart[], mark?: string): EncodedChat {
  // A tokenizer without `lengthOf` drops white space, so the positions of its tokens in the text are not known: encode
  // each part separately.
  if (!tokenizer.lengthOf) {
    const all = parts.map(({ text, assistant }) => ({ assistant, ids: encodeText(tokenizer, text, mark) }));
    return {
      ids: all.flatMap(({ ids }) => ids),
      assistant: all.flatMap(({ ids, assistant }) => ids.map(() => assistant)),
    };
  }
  const ids = encodeText(tokenizer, joined(parts), mark), encoder = new TextEncoder(), ends: number[] = [];
  for (const { text } of parts) {
    ends.push((ends.at(-1) ?? 0) + encoder.encode(mark ? text.replaceAll(mark, "") : text).length);
  }
  let at = 0, part = 0;
  const assistant = ids.map((id) => {
    const end = at + tokenizer.lengthOf!(id);
    while (part < parts.length - 1 && ends[part] <= at) part++;
    let found = false;
    for (let p = part; p < parts.length && (p === part || ends[p - 1] < end); p++) found ||= parts[p].assistant;
    at = end;
    return found;
  });
  return { ids, assistant };
}

/**
 * A copy of a tokenizer with a chat template and the special tokens that the template needs. The template is saved with
 * the tokenizer. If tokens were added, resize the model with {@linkcode GPT.resizeTokenEmbeddings}.
 *
 * @param template `chatml`, `plain`, `nanochat`, or a text in Jinja, whose special tokens the tokenizer must already
 * have
 * @throws {DataError} when the tokenizer cannot take more tokens
 */
export function chatTokenizer<T extends Tokenizer>(tokenizer: T, template: string): Tokenizer {
  const chat = Object.hasOwn(BUILT_IN_CHATS, template) ? BUILT_IN_CHATS[template] : undefined;
  return tokenizer.withSpecialTokens(chat?.tokens ?? [], {
    chatTemplate: chat?.source ?? template,
    roles: chat ? { eos_token: chat.end } : {},
  });
}
