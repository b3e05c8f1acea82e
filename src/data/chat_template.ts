/**
 * Chats as a model reads them: messages into text by a template, text into ids, and which of the ids the assistant writes.
 *
 * Templates are transformers' (https://huggingface.co/docs/transformers/chat_templating): Jinja with `trim_blocks`, `lstrip_blocks`,
 * loop controls, `{% generation %}`, `raise_exception`, `strftime_now` and `tojson`.
 */
import { ConfigError, DataError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { splitAt, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { BUILT_IN_CHATS, type BuiltInChat, type ChatPart } from "./built_in_chats.ts";
import { type Rendering, type TemplateLimits, TemplateWorker } from "./chat_worker.ts";
import type { Message, TemplateExtras } from "./examples.ts";

/** How a chat is rendered. */
export interface RenderOptions extends TemplateExtras {
  /** Whether the text ends with what begins the assistant's turn. Default false. */
  readonly addGenerationPrompt?: boolean;
  /** Whether the text ends where the last message does, without what ends its turn, for the model to go on with it. Default false. */
  readonly continueFinalMessage?: boolean;
  /**
   * What special tokens are in what is said: `tokens`, the default, as in transformers; or `text`: ordinary text, so that no message can
   * end its turn and begin another's. transformers calls the latter `sanitize_control_tokens`.
   */
  readonly contents?: "tokens" | "text";
  /** What `strftime_now` tells. Default: now; what has to come out the same tomorrow names a time. */
  readonly now?: Date;
}

/** What {@linkcode ChatTemplate} takes besides the template. */
export interface ChatTemplateOptions extends TemplateLimits {
  /** What errors call it. */
  readonly name?: string;
  /** Special tokens by the names that templates have for them: `bos_token`, `eos_token`, … */
  readonly specialTokens?: Readonly<Record<string, unknown>>;
}

/** A chat in ids. */
export interface EncodedChat {
  /** Of the whole text. */
  readonly ids: number[];
  /** Of each, whether the assistant writes it. */
  readonly assistant: boolean[];
}

/** Where an assistant's turn ends. */
export interface EndOfTurn {
  /** Tokens that end it. */
  readonly ids: readonly number[];
  /** Where there are none: the text that follows a turn. */
  readonly strings: readonly string[];
}

/**
 * A chat template. One of the built-in ones (ChatML, plain, nanochat) is rendered here; others in a worker with bounded memory and
 * time, which is made when it is first needed, and ends with `using` or with the process.
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
  /** In Jinja. */
  readonly source: string;
  /** What errors call it. */
  readonly name: string;
  readonly #special: Readonly<Record<string, unknown>>;
  readonly #builtIn: BuiltInChat | undefined;
  readonly #worker: TemplateWorker;
  readonly #marked: string;

  /** Of a text in Jinja; what is wrong with it is said when it is first rendered. */
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

  /** That of a tokenizer, as it was loaded with a model or made by {@linkcode chatTokenizer}; undefined where it has none. */
  static of(tokenizer: Pick<Tokenizer, "toJSON">, options: ChatTemplateOptions = {}): ChatTemplate | undefined {
    const { chat_template, special_tokens } = tokenizer.toJSON();
    if (typeof chat_template !== "string") return;
    return new ChatTemplate(chat_template, {
      specialTokens: isObject(special_tokens) ? special_tokens : {},
      ...options,
    });
  }

  /**
   * The text of a chat.
   *
   * @throws {DataError} when the template refuses the messages, fails, or does not come to its end; the message says why
   */
  async render(messages: readonly Message[], options: RenderOptions = {}): Promise<string> {
    if (options.continueFinalMessage) return await this.#unfinished(messages, options);
    const chat = this.#checked(messages), prompt = options.addGenerationPrompt ?? false;
    if (this.#builtIn) return joined(this.#builtInParts(chat, prompt));
    return (await this.#render(chat, options, [{ count: chat.length, prompt }]))[0];
  }

  /** As transformers: a tag at the end of the message shows where it is cut, and by its space whether the template trims. */
  async #unfinished(messages: readonly Message[], options: RenderOptions): Promise<string> {
    if (options.addGenerationPrompt) {
      throw new ConfigError(
        "addGenerationPrompt begins another message than the one that continueFinalMessage goes on with",
      );
    }
    const tag = `\ue003${crypto.randomUUID()}`,
      last = messages.at(-1)!,
      tagged = { ...last, content: `${last?.content}${tag} ` };
    const text = await this.render(messages.toSpliced(-1, 1, tagged), { ...options, continueFinalMessage: false });
    const at = text.lastIndexOf(tag), before = text.slice(0, at);
    if (at < 0) throw new DataError(`${this.name} does not write the last message, which is to be gone on with`);
    return text[at + tag.length] === " " ? before : before.trimEnd();
  }

  /**
   * The text of a chat in pieces: those that the assistant writes, by the template's `{% generation %}`; in a template without it
   * what each of the assistant's messages adds to those before it.
   *
   * @throws {DataError} as {@linkcode render}, and where a template without `{% generation %}` writes the beginning of a chat in
   *   another way when more follows
   */
  async parts(messages: readonly Message[], options: RenderOptions = {}): Promise<ChatPart[]> {
    const chat = this.#checked(messages), prompt = options.addGenerationPrompt ?? false;
    if (this.#builtIn) return this.#builtInParts(chat, prompt);
    return this.#marked === this.source
      ? await this.#byPrefixes(chat, options, prompt)
      : await this.#byMarks(chat, options, prompt);
  }

  /**
   * The ids of a chat, special tokens among them, and which of them the assistant writes: those of which a part stands in a piece of
   * the assistant's.
   *
   * @throws {DataError} as {@linkcode parts}, and where the tokenizer cannot encode the text
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
   * The ids of a chat alone, of any template.
   *
   * @throws {DataError} as {@linkcode render}, and where the tokenizer cannot encode the text
   */
  async ids(tokenizer: Tokenizer, messages: readonly Message[], options: RenderOptions = {}): Promise<number[]> {
    const [chat, mark] = withMarks(tokenizer, messages, options);
    return encodeText(tokenizer, await this.render(chat, options), mark);
  }

  /**
   * What ends the assistant's turn: the first token after what it says, where that is a special one, and otherwise the text up to what
   * the user says next.
   *
   * @throws {DataError} as {@linkcode render}, and where the template does not write what the assistant says as it stands
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
        `${this.name} does not write what the assistant says as it stands: its turn has no known end`,
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
      return Object.fromEntries(said) as unknown as Message; // as transformers: templates look whether something is there
    });
  }

  #builtInParts(messages: readonly Message[], prompt: boolean): ChatPart[] {
    const { eos_token = "<|endoftext|>" } = this.#special, parts = this.#builtIn === BUILT_IN_CHATS.nanochat;
    for (const [i, { content, role }] of messages.entries()) {
      if (typeof content === "string" || parts && role === "assistant" && areParts(content)) continue;
      throw new DataError(`${this.name}: message ${i + 1}, of ${role}, has no text as its content`);
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
      if (after.length !== Math.min(i, 1)) break; // what does not close, or closes twice, is found below
      if (i === 0) parts.push({ text: inside, assistant: false });
      else parts.push({ text: inside, assistant: true }, { text: after[0], assistant: false });
    }
    if (joined(parts) === text) return parts.filter((part) => part.text !== "");
    throw new DataError(
      `${this.name} does something with what stands in {% generation %} besides writing it, so that its place is not known`,
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
          } in another way when more follows: ` +
            "so it is not known what the assistant writes",
        );
      }
      parts.push({ text: text.slice(at, before.length), assistant: false });
      parts.push({ text: text.slice(before.length, at = after.length), assistant: true });
    }
    return [...parts, { text: text.slice(at), assistant: false }].filter((part) => part.text !== "");
  }
}

/** Block tags that transformers adds to Jinja. */
const GENERATION = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

const joined = (parts: readonly ChatPart[]): string => parts.map(({ text }) => text).join("");

const areParts = (content: unknown): boolean =>
  Array.isArray(content) && content.every((part) => isObject(part) && typeof part.text === "string");

/**
 * The messages with a mark in every special token that they contain, so that it is not taken for one.
 *
 * @returns also the mark, where there are any
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

/** Special tokens are tokens, but for those with a mark inside. */
function encodeText(tokenizer: Tokenizer, text: string, mark?: string): number[] {
  const special = tokenizer.specialTokens;
  if (mark === undefined || !special) return Array.from(tokenizer.encode(text, { allowedSpecial: "all" }));
  return splitAt(text, [...special.keys()]).flatMap(([part, isToken]) =>
    isToken ? [special.get(part)!] : [...tokenizer.encode(part.replaceAll(mark, ""), { disallowedSpecial: new Set() })]
  );
}

/** @throws {DataError} when the tokenizer cannot encode the text */
export function encodeParts(tokenizer: Tokenizer, parts: readonly ChatPart[], mark?: string): EncodedChat {
  if (!tokenizer.lengthOf) { // tokens leave out white space between words: parts are encoded apart
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
 * A tokenizer that writes chats: with the special tokens that a template needs, and with the template itself, so that it is saved with a
 * model. The model needs as many rows: {@linkcode GPT.resizeTokenEmbeddings}.
 *
 * @param template `chatml`, `plain`, `nanochat`, or a text in Jinja, which is written with tokens that the tokenizer has
 * @throws {DataError} when the tokenizer takes no more tokens
 */
export function chatTokenizer<T extends Tokenizer>(tokenizer: T, template: string): Tokenizer {
  const chat = Object.hasOwn(BUILT_IN_CHATS, template) ? BUILT_IN_CHATS[template] : undefined;
  return tokenizer.withSpecialTokens(chat?.tokens ?? [], {
    chatTemplate: chat?.source ?? template,
    roles: chat ? { eos_token: chat.end } : {},
  });
}
