import { exists, isObject, readBytes, readJson } from "../files/files.ts";
import { readMetaPkl } from "./meta_pkl.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { BytePairTokenizer } from "./byte_pair.ts";
import { CharacterTokenizer } from "./character.ts";
import { encodingName, encodingNames, loadEncoding } from "./encodings.ts";
import { chatJson, type Tokenizer } from "./tokenizer.ts";
import { parseTokenizerJson } from "./tokenizer_json.ts";
import {
  type AddedToken,
  bytePairTokenizer,
  parseAdded,
  parseMerges,
  parsePairs,
  parseVocabulary,
} from "./vocab_and_merges.ts";
import { WordTokenizer } from "./words.ts";

/**
 * Loads a tokenizer by name or from a folder:
 *
 * - `gpt2` (`r50k_base`), `cl100k_base`, `o200k_base`: tiktoken's encodings, for which the package gpt-tokenizer is
 *   downloaded
 * - a Hugging Face folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`
 * - a run folder with `vocabulary.json`, or a folder of tokens with `meta.json` or nanoGPT's `meta.pkl`
 *
 * @throws {ConfigError} when `nameOrFolder` is neither an encoding nor an existing folder
 * @throws {CheckpointError} when the folder has no tokenizer, or it is damaged or not supported
 * @throws {DataError} when the package cannot be loaded
 */
export async function loadTokenizer(nameOrFolder: string): Promise<Tokenizer> {
  const encoding = encodingName(nameOrFolder);
  if (encoding) return await loadEncoding(encoding);
  const file = (name: string) => `${nameOrFolder}/${name}`, has = (name: string) => exists(file(name));
  if (!nameOrFolder || !await exists(nameOrFolder)) {
    throw new ConfigError(
      `No tokenizer ${JSON.stringify(nameOrFolder)}; pass ${encodingNames.join(", ")}, or a folder with a tokenizer`,
    );
  }
  if (await has("tokenizer.json")) {
    const json = await readJson(file("tokenizer.json")), { added_tokens: own = [] } = json;
    // tokenizer_config.json may add further tokens.
    const there = new Set(Array.isArray(own) ? own.map((token) => isObject(token) && token.content) : []);
    const more = (await readConfig(nameOrFolder)).filter(({ content }) => !there.has(content)).map(plainToken);
    const added_tokens = Array.isArray(own) ? [...own, ...more] : own;
    return await withRoles(parseTokenizerJson({ ...json, added_tokens }, file("tokenizer.json")), nameOrFolder);
  }
  if (await has("vocab.json")) return await withRoles(await loadVocabAndMerges(nameOrFolder), nameOrFolder);
  for (const name of ["vocabulary.json", "meta.json"]) {
    if (!await has(name)) continue;
    const json = await readJson(file(name));
    return await tokenizerFromJSON(name === "meta.json" ? json.tokenizer : json, file(name));
  }
  if (await has("meta.pkl")) return await readMetaPkl(file("meta.pkl"));
  throw new CheckpointError(
    `No tokenizer in ${nameOrFolder}: expected tokenizer.json, vocab.json with merges.txt, or vocabulary.json`,
  );
}

/**
 * Makes a tokenizer from the value that a tokenizer's `toJSON` returned.
 *
 * @param path path of the file, for messages
 * @throws {CheckpointError} when the value does not describe a tokenizer
 * @throws {DataError} when the package with an encoding's vocabulary cannot be loaded
 */
export async function tokenizerFromJSON(json: unknown, path = "the vocabulary"): Promise<Tokenizer> {
  const { type, encoding, vocab, merges, added_tokens, special_tokens, chat_template } = isObject(json) ? json : {};
  if (type === "words" || type === "ids") return WordTokenizer.fromJSON({ ...json as object });
  if (type !== "bpe") return CharacterTokenizer.fromJSON(json);
  const roles = { ...isObject(special_tokens) ? special_tokens : {}, chat_template };
  if (encoding === undefined) {
    const tables = { vocab: parseVocabulary(vocab, path), merges: parsePairs(merges, path) };
    return giveRoles(bytePairTokenizer({ ...tables, added: parseAdded(added_tokens, path) }, path), roles);
  }
  const name = typeof encoding === "string" ? encodingName(encoding) : undefined;
  if (name) {
    const own = await loadEncoding(name), added = parseAdded(added_tokens ?? [], path).sort((a, b) => a.id - b.id);
    if (added.some(({ id, special }, i) => id !== own.vocabSize + i || !special)) {
      throw new CheckpointError(
        `${path} is damaged: the ids of its special tokens do not follow after ${name}`,
      );
    }
    const contents = added.map(({ content }) => content);
    return contents.length > 0 || chat_template !== undefined ? giveRoles(own.withSpecialTokens(contents), roles) : own;
  }
  throw new CheckpointError(
    `${path}: unknown encoding ${JSON.stringify(encoding)}, expected ${encodingNames.join(", ")}`,
  );
}

/** Loads the older format of GPT-2's tokenizer: vocab.json and merges.txt. Further files name the special tokens. */
async function loadVocabAndMerges(folder: string): Promise<Tokenizer> {
  const path = `${folder}/vocab.json`, vocab = parseVocabulary(await readJson(path), path);
  const merges = parseMerges(await readBytes(`${folder}/merges.txt`), `${folder}/merges.txt`);
  const added = new Map<string, AddedToken>();
  const add = (token: AddedToken) => added.set(token.content, token);
  if (Object.hasOwn(vocab, END)) add({ content: END, id: vocab[END], special: true });
  const older = parseVocabulary(await beside(folder, "added_tokens.json"), `${folder}/added_tokens.json`);
  for (const [content, id] of Object.entries(older)) add({ content, id, special: false });
  for (const token of await readConfig(folder)) add(token);
  for (const name of ROLES) {
    // Keys such as `bos_token` name special tokens. The value is the token, or an object with the token as `content`.
    for (const [key, value] of Object.entries(await beside(folder, name))) {
      const content = isObject(value) ? value.content : value;
      if (!key.endsWith("_token") || typeof content !== "string" || added.has(content)) continue;
      if (content && Object.hasOwn(vocab, content)) add({ content, id: vocab[content], special: true });
    }
  }
  return bytePairTokenizer({ vocab, merges, added: [...added.values()] }, folder);
}

/** Files that name the tokens that begin, end and pad a text. The second file overrides the first. */
const ROLES = ["special_tokens_map.json", "tokenizer_config.json"];

/** Reads a JSON file of a folder; an empty object if it does not exist. */
const beside = async (folder: string, name: string): Promise<Record<string, unknown>> =>
  await exists(`${folder}/${name}`) ? await readJson(`${folder}/${name}`) : {};

const END = "<|endoftext|>";

const plainToken = (token: AddedToken) => ({ ...token, lstrip: false, rstrip: false, single_word: false });

/** Adds to a tokenizer the roles of special tokens and the chat template that a folder's files contain. */
async function withRoles(tokenizer: Tokenizer, folder: string): Promise<Tokenizer> {
  const roles: Record<string, unknown> = {};
  for (const name of ROLES) Object.assign(roles, await beside(folder, name));
  const template = `${folder}/chat_template.jinja`;
  if (await exists(template)) roles.chat_template = new TextDecoder().decode(await readBytes(template));
  return giveRoles(tokenizer, roles);
}

/**
 * Adds roles of special tokens, and the chat template, to the result of a tokenizer's `toJSON`. A role is ignored if the
 * tokenizer does not have the token.
 */
export function giveRoles(tokenizer: Tokenizer, given: unknown): Tokenizer {
  const { specialTokens, addedTokens } = tokenizer as Partial<BytePairTokenizer>;
  if (!isObject(given)) return tokenizer;
  const roles: Record<string, string | string[]> = {}, chatTemplate = templateOf(given.chat_template);
  for (const [role, named] of Object.entries(given)) {
    if (!/^([a-z]+_token|(additional|extra)_special_tokens)$/.test(role)) continue;
    const texts = [named].flat().map((token) => isObject(token) ? token.content : token);
    const known = texts.filter((text): text is string =>
      !!specialTokens?.has(text as string) || !!addedTokens?.has(text as string)
    );
    if (known.length > 0) roles[role] = Array.isArray(named) ? known : known[0];
  }
  const some = Object.keys(roles).length > 0 ? roles : undefined;
  if (tokenizer instanceof BytePairTokenizer) { // like withSpecialTokens, but without copying the tables
    Object.assign(tokenizer.tables.json, chatJson({ roles: some, chatTemplate }, {}));
    return tokenizer;
  }
  return some || chatTemplate !== undefined
    ? tokenizer.withSpecialTokens([], { roles: some, chatTemplate })
    : tokenizer;
}

/** The chat template. In older files with several templates, it is the template named "default". */
function templateOf(given: unknown): string | undefined {
  const named = Array.isArray(given) ? given.find((one) => isObject(one) && one.name === "default") : undefined;
  const template = named?.template ?? given;
  return typeof template === "string" ? template : undefined;
}

/**
 * Reads the added tokens of `tokenizer_config.json`.
 *
 * @throws {CheckpointError} when a setting adds tokens around a text or a space before it, which is not supported
 */
async function readConfig(folder: string): Promise<AddedToken[]> {
  const path = `${folder}/tokenizer_config.json`, config = await beside(folder, "tokenizer_config.json");
  const { added_tokens_decoder = {} } = config;
  for (const name of ["add_prefix_space", "add_bos_token", "add_eos_token"]) {
    if (config[name]) throw new CheckpointError(`${path}: ${name} is true, which is not supported`);
  }
  if (!isObject(added_tokens_decoder)) {
    throw new CheckpointError(`${path} is damaged: added_tokens_decoder is not an object`);
  }
  const tokens = Object.entries(added_tokens_decoder).map(([id, token]) =>
    isObject(token) ? { id: Number(id), ...token } : token
  );
  return parseAdded(tokens, path);
}
