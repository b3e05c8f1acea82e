/**
 * Converts text to token ids and back: by characters, by words, by GPT-2's byte pairs, or with a tokenizer from Hugging
 * Face's files.
 *
 * @module
 */
export { type BytePairTables, BytePairTokenizer } from "./byte_pair.ts";
export { CharacterTokenizer } from "./character.ts";
export { loadTokenizer, tokenizerFromJSON } from "./load.ts";
export { type HuggingFaceTokenizer, toHuggingFaceTokenizer } from "./to_hugging_face.ts";
export type { ChatRoles, EncodeOptions, TokenDecoder, Tokenizer } from "./tokenizer.ts";
export { WordTokenizer } from "./words.ts";
