/**
 * Turns text into tokens and tokens into batches: nanoGPT's datasets, folders of tokens, and rows of prompts, chats and
 * preferences.
 *
 * {@linkcode loadData} loads a dataset to train a language model on; {@linkcode readExamples} reads the rows of a
 * fine-tuning file.
 *
 * @module
 */
export { type Batch, batchAt, getBatch } from "./batch.ts";
export { type DataFolder, modelVocabSize, openDataFolder } from "./data_folder.ts";
export { type DataOptions, loadData, type LoadedData } from "./load_data.ts";
export { Epochs, type EpochsState, holdOut } from "./epochs.ts";
export {
  type Example,
  type ExampleOptions,
  type Kind,
  type Label,
  type Message,
  readExamples,
  type TemplateExtras,
  type Words,
} from "./examples.ts";
export type { KnownFile } from "./download.ts";
export { defaultCacheFolder } from "../files/cache_folder.ts";
export { type LoadedText, loadText, readText, type TextOptions } from "./load_text.ts";
export { prepare, type Prepared, type PrepareOptions, type PrepareProgress } from "./prepare.ts";
export { splitTokens, type TokenSplits } from "./split.ts";
export { labelCount, paddedLength, paddedLengths, type TokenRow, TokenRows } from "./token_rows.ts";
export {
  type ConversationEncoder,
  endOfText,
  type TokenizedRow,
  tokenizeExample,
  type TokenizeOptions,
} from "./tokenize_example.ts";
export {
  preferenceRows,
  type TokenizedPreference,
  tokenizePreference,
  tokenizePrompt,
  tokenizeRanking,
} from "./tokenize_preference.ts";
export { identify, TokenFile, type Tokens, type TokensIdentity, type TokenType } from "./tokens.ts";
export { type ChatPart } from "./built_in_chats.ts";
export {
  ChatTemplate,
  type ChatTemplateOptions,
  chatTokenizer,
  type EncodedChat,
  type EndOfTurn,
  type RenderOptions,
} from "./chat_template.ts";
export type { TemplateLimits } from "./chat_worker.ts";
