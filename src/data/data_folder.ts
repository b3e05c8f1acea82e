/**
 * A folder of tokens, nanoGPT's `data/NAME`:
 *
 *     train.bin, val.bin    token ids, as little-endian uint16
 *     meta.json             the tokenizer, and the ids' type where that is uint32: written by `prepare`
 *     meta.pkl              nanoGPT's own, of characters
 *
 * Without either, the tokens are GPT-2's, as in nanoGPT.
 */
import { exists, owned, readJson } from "../files/files.ts";
import { readMetaPkl } from "../tokenizer/meta_pkl.ts";
import { DataError } from "../errors.ts";
import { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import { loadEncoding } from "../tokenizer/encodings.ts";
import { tokenizerFromJSON } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { TokenSplits } from "./split.ts";
import { TokenFile, type TokenType } from "./tokens.ts";

/** What a folder's `meta.json` says. */
export interface TokenMeta {
  /** A tokenizer's `toJSON`. */
  readonly tokenizer: Record<string, unknown>;
  readonly vocab_size: number;
  readonly dtype: TokenType;
}

/** A folder of tokens, open. */
export interface DataFolder {
  /** Read as batches need them. */ readonly data: TokenSplits<TokenFile>;
  /** What the ids mean. */ readonly tokenizer: Tokenizer;
  /** The vocabulary of a model of these data. */ readonly vocabSize: number;
}

/** Whether there are tokens in a folder. */
export function isDataFolder(path: string): Promise<boolean> {
  return exists(`${path}/train.bin`);
}

/**
 * Opens a folder of tokens.
 *
 * @throws {DataError} when a file is missing or damaged, or a part is not longer than a block
 * @throws {CheckpointError} when its tokenizer is damaged
 */
export async function openDataFolder(path: string, { blockSize }: { blockSize: number }): Promise<DataFolder> {
  const { tokenizer, type } = await readMeta(path);
  const open = (name: string) =>
    owned(TokenFile.open(`${path}/${name}`, { type }), (file) => {
      if (file.length > blockSize) return file;
      throw new DataError(`${file.path} is too short for block_size=${blockSize}: it has ${file.length} tokens`);
    });
  const data = await owned(await open("train.bin"), async (train) => ({ train, val: await open("val.bin") }));
  return { data, tokenizer, vocabSize: modelVocabSize(tokenizer) };
}

async function readMeta(path: string): Promise<{ tokenizer: Tokenizer; type?: TokenType }> {
  const meta = `${path}/meta.json`, pickle = `${path}/meta.pkl`;
  if (!await exists(meta)) {
    return { tokenizer: await exists(pickle) ? await readMetaPkl(pickle) : await loadEncoding("gpt2") };
  }
  const { tokenizer: json, vocab_size, dtype } = await readJson(meta);
  const tokenizer = await tokenizerFromJSON(json, meta);
  if (vocab_size === tokenizer.vocabSize && (dtype === "uint16" || dtype === "uint32")) {
    return { tokenizer, type: dtype };
  }
  throw new DataError(
    `${meta} is damaged: vocab_size is ${JSON.stringify(vocab_size)} and dtype ${JSON.stringify(dtype)}, ` +
      `expected ${tokenizer.vocabSize}, and "uint16" or "uint32"`,
  );
}

/**
 * The vocabulary of a model for a tokenizer: one for each character, and of byte pairs a multiple of 64, as nanoGPT's 50304 for
 * GPT-2's 50257.
 */
export function modelVocabSize(tokenizer: Tokenizer): number {
  return tokenizer instanceof BytePairTokenizer ? 64 * Math.ceil(tokenizer.vocabSize / 64) : tokenizer.vocabSize;
}
