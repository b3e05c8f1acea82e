/**
 * nanoGPT's meta.pkl, which its prepare.py leaves beside the tokens of a character-level dataset: a pickle of
 * `{"vocab_size": 65, "itos": {0: "\n", …}, "stoi": {"\n": 0, …}}`.
 */
import { CheckpointError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { CharacterTokenizer } from "./character.ts";
import { refuseStandIn, replaceFile } from "../files/files.ts";
import { readPickle } from "../files/pickle.ts";
import { writePickle } from "../files/pickle_writer.ts";
import { system } from "../files/system.ts";

/** Bytes: a vocabulary of every character there is takes less. */
const MAX_SIZE = 2 ** 25;

/**
 * The vocabulary in a meta.pkl.
 *
 * @throws {CheckpointError} when the file is missing, damaged, no meta.pkl, or one whose tokens are not single characters
 * @example
 * ```ts ignore
 * const tokenizer = await readMetaPkl("data/shakespeare_char/meta.pkl");
 * ```
 */
export async function readMetaPkl(path: string): Promise<CharacterTokenizer> {
  let bytes;
  try {
    const { size } = await system.stat(path);
    if (size > MAX_SIZE) throw new CheckpointError(`${size} bytes are no meta.pkl`);
    bytes = await system.readFile(path);
  } catch (error) {
    throw new CheckpointError(`Cannot read ${path}: ${reason(error)}`);
  }
  refuseStandIn(bytes, path);
  const refuse = (why: string) => new CheckpointError(`${path} is no meta.pkl of a character-level dataset: ${why}`);
  const value = readPickle(bytes, { where: path });
  if (!(value instanceof Map)) throw refuse("it is no dict");
  const [size, itos, stoi] = ["vocab_size", "itos", "stoi"].map((name) => value.get(name));
  if (!(itos instanceof Map) || !(stoi instanceof Map)) throw refuse("it has no itos or no stoi");
  if (size !== itos.size || size !== stoi.size || size === 0) {
    throw refuse(`vocab_size is ${size}, itos has ${itos.size} and stoi ${stoi.size}`);
  }
  const characters = Array.from({ length: size }, (_, id) => {
    const character = itos.get(id);
    if (typeof character !== "string" || [...character].length !== 1) throw refuse(`token ${id} is not one character`);
    if (stoi.get(character) === id) return character;
    throw refuse(`token ${id} is ${JSON.stringify(character)}, which stoi has as ${stoi.get(character)}`);
  });
  return new CharacterTokenizer(characters);
}

/**
 * Writes a vocabulary for nanoGPT's train.py and sample.py.
 *
 * @throws {CheckpointError} when the file cannot be written
 */
export async function writeMetaPkl(path: string, { characters }: CharacterTokenizer): Promise<void> {
  const itos = new Map(characters.map((character, id) => [id, character]));
  const stoi = new Map(characters.map((character, id) => [character, id]));
  await replaceFile(path, [writePickle({ vocab_size: characters.length, itos, stoi })]);
}
