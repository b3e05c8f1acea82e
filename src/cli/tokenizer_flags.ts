/** Flags of the commands that turn a text into tokens. */
import type { EncodeOptions } from "../tokenizer/tokenizer.ts";
import { choice, text } from "./flags.ts";

export const tokenizerFlags = {
  tokenizer: text(
    "gpt2",
    "gpt2, cl100k_base, o200k_base, or a folder: a Hugging Face model's, a run's, or one with tokens",
  ),
  special_tokens: choice(
    ["refuse", "allow", "text"],
    "what <|endoftext|> and its like in a text are: refuse; allow: special tokens; text: ordinary letters",
  ),
};

/** What `--special_tokens` means to `encode`. */
export function encodeOptions(special: string): EncodeOptions {
  if (special === "allow") return { allowedSpecial: "all" };
  return special === "text" ? { disallowedSpecial: new Set() } : {};
}
