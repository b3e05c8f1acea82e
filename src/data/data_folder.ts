/**
 * A folder of tokens, as in nanoGPT's `data/NAME`:
 *
 *     train.bin, val.bin    token ids, as little-endian uint16
 *     meta.json             the tokenizer and the type of the ids (uint16 or uint32), written by `prepare`
 *     meta.pkl              the vocabulary in nanoGPT's format, for a character tokenizer
 *
 * If a folder has neither meta.json nor meta.pkl, its tokens are GPT-2's, as in nanoGPT.
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

/** The contents of `meta.json`. */
export interface TokenMeta {
  /** The result of the tokenizer's `toJSON`. */
  readonly tokenizer: Record<string, unknown>;
  readonly vocab_size: number;
  readonly dtype: TokenType;
}

/** An open folder of tokens. */
export interface DataFolder {
  /** The two token files. Each batch reads only its own tokens. */ readonly data: TokenSplits<TokenFile>;
  /** The tokenizer that made the tokens. */ readonly tokenizer: Tokenizer;
  /** Vocabulary size for a model that trains on these tokens. */ readonly vocabSize: number;
}

/** Whether a folder has tokens, that is, a train.bin. */
export function isDataFolder(path: string): Promise<boolean> {
  return exists(`${path}/train.bin`);
}

/**
 * Opens a folder of tokens.
 *
 * @throws {DataError} when a file is missing or damaged, or has `blockSize` tokens or fewer
 * @throws {CheckpointError} when the tokenizer in meta.json or meta.pkl is damaged
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
 * Vocabulary size for a model that uses a tokenizer. For byte-pair tokenizers, the tokenizer's size is rounded up to a
 * multiple of 64, which makes matrix products faster: nanoGPT rounds GPT-2's 50257 to 50304. For all other tokenizers it
 * is the tokenizer's size.
 */
export function modelVocabSize(tokenizer: Tokenizer): number {
  return tokenizer instanceof BytePairTokenizer ? 64 * Math.ceil(tokenizer.vocabSize / 64) : tokenizer.vocabSize;
}
