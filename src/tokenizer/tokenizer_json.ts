/**
 * Reads Hugging Face's `tokenizer.json`. Only byte-level BPE with GPT-2's pattern is supported, and the characters that
 * `toHuggingFaceTokenizer` writes. For any other setting an error names the setting, because wrong ids would be worse
 * than an error.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { CharacterTokenizer } from "./character.ts";
import { SPLIT } from "./to_hugging_face.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { bytePairTokenizer, parseAdded, parsePairs, parseVocabulary } from "./vocab_and_merges.ts";

/**
 * Makes a tokenizer from a `tokenizer.json`: byte pairs, or characters as written by `toHuggingFaceTokenizer`.
 *
 * @throws {CheckpointError} when the tokenizer is damaged or of a kind that is not supported; the message names the
 * setting
 */
export function parseTokenizerJson(json: unknown, path: string): Tokenizer {
  const { model, normalizer, pre_tokenizer, post_processor, decoder, added_tokens } = isObject(json) ? json : {};
  if (!isObject(model)) throw new CheckpointError(`${path} is damaged: it has no model`);
  const refuse = (what: string, value: unknown) => {
    const shown = isObject(value) && "type" in value ? value.type : value;
    return new CheckpointError(
      `${path}: ${what} is ${JSON.stringify(shown)}, but only byte-level BPE as in GPT-2 is supported`,
    );
  };
  const characters = charactersOf(model, pre_tokenizer);
  if (characters && !normalizer && (!post_processor || addsNothing(post_processor))) {
    const added = parseAdded(added_tokens ?? [], path).sort((a, b) => a.id - b.id);
    if (added.every(({ id, special }, i) => special && id === characters.length + i)) {
      return new CharacterTokenizer(characters, { special: added.map(({ content }) => content) });
    }
  }
  // Older files have no `model.type`.
  if ((model.type ?? "BPE") !== "BPE") throw refuse("model.type", model.type);
  for (const name of ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[name]) throw refuse(`model.${name}`, model[name]);
  }
  for (const name of ["byte_fallback", "ignore_merges"]) if (model[name]) throw refuse(`model.${name}`, model[name]);
  if (normalizer) throw refuse("normalizer", normalizer);
  if (!isObject(pre_tokenizer) || pre_tokenizer.type !== "ByteLevel") {
    throw refuse("pre_tokenizer", pre_tokenizer ?? null);
  }
  if (pre_tokenizer.add_prefix_space !== false) {
    throw refuse("pre_tokenizer.add_prefix_space", pre_tokenizer.add_prefix_space ?? null);
  }
  if (pre_tokenizer.use_regex === false) throw refuse("pre_tokenizer.use_regex", false);
  if (post_processor && !addsNothing(post_processor)) throw refuse("post_processor", post_processor);
  if (decoder && !(isObject(decoder) && decoder.type === "ByteLevel")) throw refuse("decoder", decoder);
  const added = parseAdded(added_tokens ?? [], path);
  return bytePairTokenizer(
    { vocab: parseVocabulary(model.vocab, path), merges: parsePairs(model.merges, path), added },
    path,
  );
}

/** The characters of a word-level model as written by `toHuggingFaceTokenizer`; undefined for any other model. */
function charactersOf({ type, vocab }: Record<string, unknown>, splitter: unknown): string[] | undefined {
  if (type !== "WordLevel" || !isObject(vocab) || !isObject(splitter)) return;
  if (Object.entries(SPLIT).some(([name, value]) => JSON.stringify(splitter[name]) !== JSON.stringify(value))) return;
  const characters: string[] = [];
  for (const [token, id] of Object.entries(vocab)) if ([...token].length === 1) characters[Number(id)] = token;
  const complete = characters.length === Object.keys(vocab).length && !characters.includes(undefined!);
  return complete ? characters : undefined;
}

/** Whether a post-processor does not change the ids, such as a template that consists only of the text. */
function addsNothing(processor: unknown): boolean {
  if (!isObject(processor)) return false;
  const { type, single } = processor;
  if (type === "TemplateProcessing" && Array.isArray(single)) {
    return single.length === 1 && isObject(single[0]) && isObject(single[0].Sequence);
  }
  return type === "ByteLevel";
}
