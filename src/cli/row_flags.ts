/** The flags that say how the rows of a file become tokens, and what they make. */
import { BUILT_IN_CHATS } from "../data/built_in_chats.ts";
import type { TokenizeOptions } from "../data/tokenize_example.ts";
import { ConfigError } from "../errors.ts";
import { exists, readBytes } from "../files/files.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { bool, choice, int, text, type Values } from "./flags.ts";
import { encodeOptions } from "./shared_flags.ts";

/** How a file's rows become tokens: flags that `data` and `finetune` have in common. */
export const rowFlags = {
  columns: text("", "names of the file's columns where they differ from the usual: text=sentence,label=gold"),
  max_length: int(0, "the most tokens of a row; 0 is the model's block size", { min: 0 }),
  truncation: choice(["keep_start", "keep_end"], "which end of a longer row stays: keep_start or keep_end"),
  template: text(
    "",
    `how conversations are written: ${
      Object.keys(BUILT_IN_CHATS).join(", ")
    }, or a file in Jinja; else as the model's files say`,
  ),
  completion_only_loss: bool(true, "of prompts with completions, whether only the completions are learned"),
  assistant_only_loss: bool(false, "of conversations, whether only what the assistant says is learned"),
  special_tokens: choice(
    ["allow", "refuse", "text"],
    "what <|endoftext|> and its like in plain texts are: allow: special tokens; refuse; text: ordinary letters",
  ),
};

/** A line for plain texts and a tokenizer that cannot end one. */
export const NO_END =
  "The tokenizer has no token that ends a text: none is added, and the model will not learn where to end.";

/** What the flags say of how rows become tokens. */
export function rowOptions(
  values: Values<typeof rowFlags>,
  { tokenizer, template, maxLength }: Pick<TokenizeOptions, "tokenizer" | "template" | "maxLength">,
): TokenizeOptions {
  const { truncation, completion_only_loss: completionOnly, assistant_only_loss: assistantOnly } = values;
  const special = encodeOptions(values.special_tokens);
  return { tokenizer, template, maxLength, truncation, completionOnly, assistantOnly, special };
}

/**
 * The tokenizer with a chat template and the tokens that it is written with; itself where no template is named.
 *
 * @throws {ConfigError} when there is neither a built-in template nor a file of that name
 */
export async function chatting(tokenizer: Tokenizer, template: string): Promise<Tokenizer> {
  if (!template) return tokenizer;
  const { chatTokenizer } = await import("../data/chat_template.ts"); // not for commands that take the flags alone
  if (Object.hasOwn(BUILT_IN_CHATS, template)) return chatTokenizer(tokenizer, template);
  if (await exists(template)) {
    return chatTokenizer(tokenizer, new TextDecoder().decode(await readBytes(template, { limit: 2 ** 22 })));
  }
  const names = Object.keys(BUILT_IN_CHATS).join(", ");
  throw new ConfigError(`--template=${template}: there is no such file; expected ${names}, or a file in Jinja`);
}

/** @throws {ConfigError} when they are not pairs of names */
export function parseColumns(text: string): Record<string, string> {
  const pairs = text.split(",").filter(Boolean).map((pair) => pair.split("="));
  const wrong = pairs.find((pair) => pair.length !== 2 || pair.includes(""));
  if (wrong) throw new ConfigError(`--columns=${text}: expected usual=file's, such as text=sentence,label=gold`);
  return Object.fromEntries(pairs);
}
