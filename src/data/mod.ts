/** Text to batches of token ids. */
export { type Batch, batchAt, getBatch } from "./batch.ts";
export { defaultCacheFolder, type LoadedText, loadText, readText, type TextOptions } from "./load_text.ts";
export { splitTokens, type TokenSplits } from "./split.ts";
