/**
 * Reads and writes nanoGPT's meta.pkl, which a prepare.py writes for a dataset with a vocabulary of its own: a pickle
 * of `{"vocab_size": 65, "itos": {0: "\n", …}, "stoi": {"\n": 0, …}}`. nanoGPT's train.py reads only `vocab_size`.
 */
import { CheckpointError } from "../errors.ts";
import { CharacterTokenizer } from "./character.ts";
import { readBytes, replaceFile } from "../files/files.ts";
import { readPickle } from "../files/pickle.ts";
import { writePickle } from "../files/pickle_writer.ts";
import { areWords } from "./tokenizer.ts";
import { isVocabSize, WordTokenizer } from "./words.ts";

/** The maximum size of a file in bytes. A vocabulary of all Unicode characters is smaller. */
const MAX_SIZE = 2 ** 25;

/**
 * Reads the vocabulary in a meta.pkl: characters, or words if `itos` has longer texts, or only a number of ids if it
 * has no `itos`.
 *
 * @throws {CheckpointError} when the file is missing, damaged or not a meta.pkl
 * @example
 * ```ts ignore
 * const tokenizer = await readMetaPkl("data/shakespeare_char/meta.pkl");
 * ```
 */
export async function readMetaPkl(path: string): Promise<CharacterTokenizer | WordTokenizer> {
  const bytes = await readBytes(path, { limit: MAX_SIZE });
  const refuse = (why: string) => new CheckpointError(`${path} is not a meta.pkl of a dataset: ${why}`);
  const value = readPickle(bytes, { where: path });
  if (!(value instanceof Map)) throw refuse("it is not a dict");
  const [size, itos, stoi] = ["vocab_size", "itos", "stoi"].map((name) => value.get(name));
  if (!isVocabSize(size)) throw refuse(`vocab_size is ${size}`);
  if (itos === undefined) return new WordTokenizer({ vocabSize: size });
  if (!(itos instanceof Map) || itos.size !== size) {
    throw refuse(`vocab_size is ${size}, but itos has ${itos instanceof Map ? `${itos.size} tokens` : "none"}`);
  }
  const words = Array.from({ length: size }, (_, id) => itos.get(id));
  if (!areWords(words)) throw refuse("itos does not map the ids from 0 on to distinct texts");
  if (words.some((word) => [...word].length > 1)) return new WordTokenizer({ words });
  if (stoi === undefined) return new CharacterTokenizer(words);
  if (!(stoi instanceof Map) || stoi.size !== size) throw refuse(`vocab_size is ${size}, but stoi has other tokens`);
  const wrong = words.findIndex((word, id) => stoi.get(word) !== id);
  if (wrong < 0) return new CharacterTokenizer(words);
  throw refuse(`token ${wrong} is ${JSON.stringify(words[wrong])}, but stoi maps it to ${stoi.get(words[wrong])}`);
}

/**
 * Writes a vocabulary as a meta.pkl for nanoGPT's train.py and sample.py.
 *
 * @throws {CheckpointError} when the file cannot be written
 */
export async function writeMetaPkl(path: string, { characters }: CharacterTokenizer): Promise<void> {
  const itos = new Map(characters.map((character, id) => [id, character]));
  const stoi = new Map(characters.map((character, id) => [character, id]));
  await replaceFile(path, [writePickle({ vocab_size: characters.length, itos, stoi })]);
}
