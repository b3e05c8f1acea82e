/**
 * The chat templates that need no npm package: ChatML, plain, and nanochat's. Each is written twice. This library
 * renders the template in TypeScript. The template in Jinja is saved with a model, so that transformers and other
 * programs render the same text.
 */
import { DataError } from "../errors.ts";
import type { Message } from "./examples.ts";

/** A piece of a rendered chat. */
export interface ChatPart {
  /** The text of this piece. */
  readonly text: string;
  /** Whether the assistant writes this piece, so that a model can be trained on it. */
  readonly assistant: boolean;
}

/** A template that is rendered without a Jinja interpreter. */
export interface BuiltInChat {
  /** The template in Jinja. */
  readonly source: string;
  /** Special tokens that the template writes. */
  readonly tokens: readonly string[];
  /** The token that ends the assistant's turn. */
  readonly end: string;
  /**
   * Renders messages to pieces of text.
   * @param options.prompt whether to append the text that opens an assistant's turn
   */
  parts(messages: readonly Message[], options: { prompt: boolean; eos: string; name: string }): ChatPart[];
}

const given = (text: string): ChatPart => ({ text, assistant: false });
const learned = (text: string): ChatPart => ({ text, assistant: true });

/** OpenAI's chat markup language, as used by Qwen and SmolLM. */
const chatml: BuiltInChat = {
  source: [
    "{% for message in messages %}",
    "{{ '<|im_start|>' + message['role'] + '\\n' }}",
    "{% if message['role'] == 'assistant' %}",
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}",
    "{% else %}",
    "{{ message['content'] + '<|im_end|>' + '\\n' }}",
    "{% endif %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}",
    "{{ '<|im_start|>assistant\\n' }}",
    "{% endif %}",
  ].join(""),
  tokens: ["<|im_start|>", "<|im_end|>"],
  end: "<|im_end|>",
  parts(messages, { prompt }) {
    const parts = messages.flatMap(({ role, content }) => [
      given(`<|im_start|>${role}\n`),
      { text: `${content}<|im_end|>`, assistant: role === "assistant" },
      given("\n"),
    ]);
    return prompt ? [...parts, given("<|im_start|>assistant\n")] : parts;
  },
};

/**
 * Each message followed by the end-of-text token, as in DialoGPT (Zhang et al. 2019, arXiv:1911.00536). Roles are not
 * written: the order of the messages implies them.
 */
const plain: BuiltInChat = {
  source: [
    "{% for message in messages %}",
    "{% if message['role'] == 'assistant' %}",
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}",
    "{% else %}",
    "{{ message['content'] + eos_token }}",
    "{% endif %}",
    "{% endfor %}",
  ].join(""),
  tokens: ["<|endoftext|>"],
  end: "<|endoftext|>",
  parts: (messages, { eos }) =>
    messages.map(({ role, content }) => ({ text: content + eos, assistant: role === "assistant" })),
};

/** The text that nanochat's tokenizer.py writes for a part of the assistant's message, by the part's type. */
const NANOCHAT_PARTS: Readonly<Record<string, (text: string) => ChatPart>> = {
  text: learned,
  python: (text) => learned(`<|python_start|>${text}<|python_end|>`),
  python_output: (text) => given(`<|output_start|>${text}<|output_end|>`),
};

/**
 * Karpathy's nanochat (nanochat/tokenizer.py, render_conversation): a system message is put in front of the first user
 * message, roles alternate, and an assistant's message is a text or a list of parts,
 * `{ type: "text" | "python" | "python_output", text }`.
 */
const nanochat: BuiltInChat = {
  source: [
    "{{ '<|bos|>' }}",
    "{% set said = namespace(system='', turn=0) %}",
    "{% for message in messages %}",
    "{% if loop.first and message['role'] == 'system' %}",
    "{% set said.system = message['content'] + '\\n\\n' %}",
    "{% else %}",
    "{% if message['role'] != ('user' if said.turn % 2 == 0 else 'assistant') %}",
    "{{ raise_exception('roles must alternate user, assistant, user, …, and message ' ~ loop.index ~ ' is of ' ~ message['role']) }}",
    "{% endif %}",
    "{% if message['role'] == 'user' %}",
    "{{ '<|user_start|>' + said.system + message['content'] + '<|user_end|>' }}",
    "{% set said.system = '' %}",
    "{% else %}",
    "{{ '<|assistant_start|>' }}",
    "{% if message['content'] is string %}",
    "{% generation %}{{ message['content'] }}{% endgeneration %}",
    "{% else %}",
    "{% for part in message['content'] %}",
    "{% if part['type'] == 'text' %}",
    "{% generation %}{{ part['text'] }}{% endgeneration %}",
    "{% elif part['type'] == 'python' %}",
    "{% generation %}{{ '<|python_start|>' + part['text'] + '<|python_end|>' }}{% endgeneration %}",
    "{% else %}",
    "{{ '<|output_start|>' + part['text'] + '<|output_end|>' }}",
    "{% endif %}",
    "{% endfor %}",
    "{% endif %}",
    "{% generation %}{{ '<|assistant_end|>' }}{% endgeneration %}",
    "{% endif %}",
    "{% set said.turn = said.turn + 1 %}",
    "{% endif %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}",
    "{{ '<|assistant_start|>' }}",
    "{% endif %}",
  ].join(""),
  tokens: ["bos", "user_start", "user_end", "assistant_start", "assistant_end"]
    .concat("python_start", "python_end", "output_start", "output_end").map((name) => `<|${name}|>`),
  end: "<|assistant_end|>",
  parts(messages, { prompt, name }) {
    const before = messages[0]?.role === "system" ? 1 : 0, system = before ? `${messages[0].content}\n\n` : "";
    const parts = [given("<|bos|>")];
    for (const [turn, { role, content }] of messages.slice(before).entries()) {
      if (role !== (turn % 2 === 0 ? "user" : "assistant")) {
        const which = `message ${before + turn + 1} is of ${role}`;
        throw new DataError(`${name} says: roles must alternate user, assistant, user, …, and ${which}`);
      }
      if (role === "user") parts.push(given(`<|user_start|>${turn === 0 ? system : ""}${content}<|user_end|>`));
      else {
        const pieces: readonly { type: string; text: string }[] = typeof content === "string"
          ? [{ type: "text", text: content }]
          : content;
        parts.push(given("<|assistant_start|>"));
        for (const { type, text } of pieces) parts.push((NANOCHAT_PARTS[type] ?? NANOCHAT_PARTS.python_output)(text));
        parts.push(learned("<|assistant_end|>"));
      }
    }
    return prompt ? [...parts, given("<|assistant_start|>")] : parts;
  },
};

/** The built-in templates by name. */
export const BUILT_IN_CHATS: Readonly<Record<string, BuiltInChat>> = { chatml, plain, nanochat };
