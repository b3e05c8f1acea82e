import { exists, owned } from "../files/files.ts";
import { ConfigError, DataError } from "../errors.ts";
import { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../tokenizer/character.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import { isDataFolder, modelVocabSize, openDataFolder } from "./data_folder.ts";
import { loadText, type TextOptions } from "./load_text.ts";
import { splitTokens, type TokenSplits } from "./split.ts";

/** Options of {@linkcode loadData}. */
export interface DataOptions extends Omit<TextOptions, "dataset"> {
  /**
   * A folder of tokens, the name of a folder in `data/`, or a name that `loadText` takes. Default: `shakespeare_char`.
   */
  dataset?: string;
  /**
   * The tokenizer for a text: `"character"`, or a name or path that `loadTokenizer` takes. Default: characters, but
   * GPT-2's byte pairs for the dataset `shakespeare`, as in nanoGPT. If the dataset is a folder of tokens, it must have
   * been made with this tokenizer.
   */
  tokenizer?: Tokenizer | string;
  /** How special tokens in a text are encoded. Default: a text that contains a special token is rejected. */
  special?: EncodeOptions;
  /** Context length in tokens; the training and the validation part must each be longer. */
  blockSize: number;
}

/** The result of {@linkcode loadData}. */
export interface LoadedData {
  /** Tokens to train on and to evaluate on. */ readonly data: TokenSplits;
  /** The tokenizer that made the tokens. */ readonly tokenizer: Tokenizer;
  /** Vocabulary size for a model that trains on these tokens. */ readonly vocabSize: number;
  /** The path or name of the dataset, for messages. */ readonly source: string;
  /** Entropy of the text in nats per character, if it is known exactly. */ readonly entropy?: number;
}

/**
 * Loads the tokens to train on, from a folder of tokens or a text. The tokens of a folder stay on the disk: each batch
 * reads only its own tokens.
 *
 * @throws {DataError} when the data cannot be read, have too few tokens, or were made with a tokenizer other than
 * `options.tokenizer`
 * @throws {ConfigError} when there is no dataset or tokenizer of this name
 */
export async function loadData(options: DataOptions): Promise<LoadedData> {
  const { input, dataset = "shakespeare_char", tokenizer: wanted, blockSize } = options;
  const folder = input === undefined ? await dataFolder(dataset) : undefined;
  if (folder !== undefined) {
    const { data, tokenizer, vocabSize } = await openDataFolder(folder, { blockSize });
    await owned(data.train, () => owned(data.val, () => checkTokenizer(folder, tokenizer, wanted)));
    return { data, tokenizer, vocabSize, source: folder };
  }
  const { text, source, entropy } = await loadText(options);
  const name = wanted ?? (input === undefined && dataset === "shakespeare" ? "gpt2" : "character");
  try {
    const tokenizer = typeof name === "object"
      ? name
      : name === "character"
      ? CharacterTokenizer.fromText(text)
      : await loadTokenizer(name);
    const data = splitTokens(text, tokenizer, { blockSize, ...options.special });
    return { data, tokenizer, vocabSize: modelVocabSize(tokenizer), source, entropy };
  } catch (error) {
    throw error instanceof DataError ? new DataError(`Cannot train on ${source}: ${error.message}`) : error;
  }
}

/** @throws {ConfigError} or {DataError} when a folder's tokens were made with a tokenizer other than `wanted` */
async function checkTokenizer(folder: string, own: Tokenizer, wanted: Tokenizer | string | undefined): Promise<void> {
  if (wanted === undefined) return;
  const same = wanted === "character"
    ? own instanceof CharacterTokenizer
    : sameTokens(typeof wanted === "object" ? wanted : await loadTokenizer(wanted), own);
  if (same) return;
  if (typeof wanted === "object") {
    throw new DataError(`Cannot train on ${folder}: it was tokenized with a tokenizer other than the model's`);
  }
  throw new ConfigError(
    `tokenizer=${wanted}: ${folder} was made with a different tokenizer, of ${own.vocabSize} tokens; ` +
      "leave tokenizer out, or prepare the text again",
  );
}

/**
 * Whether two tokenizers have the same tokens. Their JSON may still differ: the JSON of GPT-2's tokenizer depends on
 * whether it was loaded from the hub or from tiktoken.
 */
function sameTokens(a: Tokenizer, b: Tokenizer): boolean {
  if (JSON.stringify(a) === JSON.stringify(b)) return true;
  if (!(a instanceof BytePairTokenizer && b instanceof BytePairTokenizer)) return false;
  return a.vocabSize === b.vocabSize && a.tables.tokens.every((bytes, id) => bytes === b.tables.tokens[id]);
}

/** The path of the folder of tokens that `dataset` names; undefined if there is no such folder. */
async function dataFolder(dataset: string): Promise<string | undefined> {
  for (const path of [`data/${dataset}`, dataset]) if (await isDataFolder(path)) return path;
  if (/[\\/]/.test(dataset) && await exists(dataset)) {
    throw new DataError(`No tokens in ${dataset}: it has no train.bin`);
  }
}
