import { exists, owned } from "../files/files.ts";
import { ConfigError, DataError } from "../errors.ts";
import { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../tokenizer/character.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import { isDataFolder, modelVocabSize, openDataFolder } from "./data_folder.ts";
import { loadText, type TextOptions } from "./load_text.ts";
import { splitTokens, type TokenSplits } from "./split.ts";

/** What a run trains on. */
export interface DataOptions extends Omit<TextOptions, "dataset"> {
  /** A folder of tokens, or the name of one in `data/`; else a name that `loadText` knows. */
  dataset?: string;
  /**
   * A text's tokenizer: `"character"`, or what `loadTokenizer` takes. Unless given, it is characters, and for the dataset
   * `shakespeare` GPT-2's tokens, as in nanoGPT. A folder's tokens must be those of a tokenizer that is given.
   */
  tokenizer?: Tokenizer | string;
  /** What the special tokens in a text are; refused unless given. */
  special?: EncodeOptions;
  /** Tokens of context; both parts must be longer. */
  blockSize: number;
}

/** What {@linkcode loadData} gives. */
export interface LoadedData {
  /** To train on, and to evaluate on. */ readonly data: TokenSplits;
  /** What the ids mean. */ readonly tokenizer: Tokenizer;
  /** The vocabulary of a model of these data. */ readonly vocabSize: number;
  /** What it is, for a line of output: a path, or a name. */ readonly source: string;
  /** Nats per character, where it is known exactly. */ readonly entropy?: number;
}

/**
 * The tokens to train on: of a folder, which is read as they are needed, or of a text.
 *
 * @throws {DataError} when they cannot be read, are too few, or not the tokenizer's
 * @throws {ConfigError} when there is no such dataset or tokenizer
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

/** @throws where a folder's tokens are not those of the tokenizer that is wanted */
async function checkTokenizer(folder: string, own: Tokenizer, wanted: Tokenizer | string | undefined): Promise<void> {
  if (wanted === undefined) return;
  const same = wanted === "character"
    ? own instanceof CharacterTokenizer
    : sameTokens(typeof wanted === "object" ? wanted : await loadTokenizer(wanted), own);
  if (same) return;
  if (typeof wanted === "object") {
    throw new DataError(`Cannot train on ${folder}: its tokens are those of another tokenizer than the model's`);
  }
  throw new ConfigError(
    `tokenizer=${wanted}: the tokens in ${folder} are those of another one, with ${own.vocabSize} tokens; name none, or prepare the text anew`,
  );
}

/** Whether ids mean the same: GPT-2's files from the hub and tiktoken's encoding, which have other names for one thing. */
function sameTokens(a: Tokenizer, b: Tokenizer): boolean {
  if (JSON.stringify(a) === JSON.stringify(b)) return true;
  if (!(a instanceof BytePairTokenizer && b instanceof BytePairTokenizer)) return false;
  return a.vocabSize === b.vocabSize && a.tables.tokens.every((bytes, id) => bytes === b.tables.tokens[id]);
}

/** The folder of tokens that `dataset` names, if there is one. */
async function dataFolder(dataset: string): Promise<string | undefined> {
  for (const path of [`data/${dataset}`, dataset]) if (await isDataFolder(path)) return path;
  if (/[\\/]/.test(dataset) && await exists(dataset)) {
    throw new DataError(`No tokens in ${dataset}: it has no train.bin`);
  }
}
