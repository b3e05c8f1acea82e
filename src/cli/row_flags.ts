/** The flags that determine how the rows of a file become tokens, and the options made from them. */
import { BUILT_IN_CHATS } from "../data/built_in_chats.ts";
import type { TokenizeOptions } from "../data/tokenize_example.ts";
import { ConfigError } from "../errors.ts";
import { exists, readBytes } from "../files/files.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { bool, choice, int, text, type Values } from "./flags.ts";
import { encodeOptions } from "./shared_flags.ts";

/** Flags that `data` and `finetune` share. */
export const rowFlags = {
  columns: text(
    "",
    "names of the file's columns, if they are not the usual ones, as USUAL=NAME: text=sentence,label=gold",
  ),
  max_length: int(0, "maximum number of tokens in a row; 0: the model's block size", { min: 0 }),
  truncation: choice(
    ["keep_start", "keep_end"],
    "where rows that are too long are cut: keep_start cuts their end, keep_end their start",
  ),
  template: text(
    "",
    `chat template for conversations: ${
      Object.keys(BUILT_IN_CHATS).join(", ")
    }, or a Jinja file; default: the model's own`,
  ),
  completion_only_loss: bool(true, "for prompts with completions: learn only the completions (sft)"),
  assistant_only_loss: bool(false, "for conversations: learn only the assistant's messages (sft)"),
  special_tokens: choice(
    ["allow", "refuse", "text"],
    "special tokens such as <|endoftext|> in a plain text: allow encodes each as one token, refuse stops with an error, text encodes them like any other text",
  ),
};

/** A note for plain texts if the tokenizer has no end-of-text token. */
export const NO_END =
  "The tokenizer has no token that ends a text: none is added, so the model will not learn where a text ends.";

/** The options for making tokens that the flags ask for. */
export function rowOptions(
  values: Values<typeof rowFlags>,
  { tokenizer, template, maxLength }: Pick<TokenizeOptions, "tokenizer" | "template" | "maxLength">,
): TokenizeOptions {
  const { truncation, completion_only_loss: completionOnly, assistant_only_loss: assistantOnly } = values;
  const special = encodeOptions(values.special_tokens);
  return { tokenizer, template, maxLength, truncation, completionOnly, assistantOnly, special };
}

/**
 * The tokenizer with a chat template and the special tokens of that template; unchanged if no template is named.
 *
 * @throws {ConfigError} if there is neither a built-in template nor a file of that name
 */
export async function chatting(tokenizer: Tokenizer, template: string): Promise<Tokenizer> {
  if (!template) return tokenizer;
  const { chatTokenizer } = await import("../data/chat_template.ts"); // imported only if a template is named
  if (Object.hasOwn(BUILT_IN_CHATS, template)) return chatTokenizer(tokenizer, template);
  if (await exists(template)) {
    return chatTokenizer(tokenizer, new TextDecoder().decode(await readBytes(template, { limit: 2 ** 22 })));
  }
  const names = Object.keys(BUILT_IN_CHATS).join(", ");
  throw new ConfigError(`--template=${template}: there is no such file; expected ${names}, or a Jinja file`);
}

/** Parses `--columns`. @throws {ConfigError} if it is not a list of pairs */
export function parseColumns(text: string): Record<string, string> {
  const pairs = text.split(",").filter(Boolean).map((pair) => pair.split("="));
  const wrong = pairs.find((pair) => pair.length !== 2 || pair.includes(""));
  if (wrong) throw new ConfigError(`--columns=${text}: expected USUAL=NAME, such as text=sentence,label=gold`);
  return Object.fromEntries(pairs);
}
