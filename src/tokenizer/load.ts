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
 * A tokenizer by its name, or out of a folder.
 *
 * - `gpt2` (`r50k_base`), `cl100k_base`, `o200k_base`: tiktoken's encodings, with the package gpt-tokenizer, which is fetched then;
 * - a Hugging Face folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`;
 * - a run folder with `vocabulary.json`, or a folder of tokens with `meta.json`, or of nanoGPT's with `meta.pkl`.
 *
 * @throws {ConfigError} when it is neither a name nor a folder
 * @throws {CheckpointError} when the folder has no tokenizer, or one that is damaged or of another kind
 * @throws {DataError} when the package cannot be had
 */
export async function loadTokenizer(nameOrFolder: string): Promise<Tokenizer> {
  const encoding = encodingName(nameOrFolder);
  if (encoding) return await loadEncoding(encoding);
  const file = (name: string) => `${nameOrFolder}/${name}`, has = (name: string) => exists(file(name));
  if (!nameOrFolder || !await exists(nameOrFolder)) {
    throw new ConfigError(
      `No tokenizer ${JSON.stringify(nameOrFolder)}: there are ${encodingNames.join(", ")}, and folders that have one`,
    );
  }
  if (await has("tokenizer.json")) {
    const json = await readJson(file("tokenizer.json")), { added_tokens: own = [] } = json;
    // What tokenizer_config.json adds besides is the tokenizer's too.
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
 * The tokenizer that a `toJSON` describes.
 *
 * @param path what the errors name
 * @throws {CheckpointError} when it describes none
 * @throws {DataError} when the package with an encoding's vocabulary cannot be had
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
      throw new CheckpointError(`${path} is damaged: special tokens do not follow those of ${name}`);
    }
    const contents = added.map(({ content }) => content);
    return contents.length > 0 || chat_template !== undefined ? giveRoles(own.withSpecialTokens(contents), roles) : own;
  }
  throw new CheckpointError(
    `${path}: there is no encoding ${JSON.stringify(encoding)}, only ${encodingNames.join(", ")}`,
  );
}

/** GPT-2's files before `tokenizer.json`. Which tokens are special stands in other files beside them. */
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
    for (const [key, value] of Object.entries(await beside(folder, name))) { // bos_token and the like: a text, or an object with it
      const content = isObject(value) ? value.content : value;
      if (!key.endsWith("_token") || typeof content !== "string" || added.has(content)) continue;
      if (content && Object.hasOwn(vocab, content)) add({ content, id: vocab[content], special: true });
    }
  }
  return bytePairTokenizer({ vocab, merges, added: [...added.values()] }, folder);
}

/** What tells which tokens begin and end a text, and the like; the second goes before the first. */
const ROLES = ["special_tokens_map.json", "tokenizer_config.json"];

/** A file of JSON beside a vocabulary; nothing stands in one that is not there. */
const beside = async (folder: string, name: string): Promise<Record<string, unknown>> =>
  await exists(`${folder}/${name}`) ? await readJson(`${folder}/${name}`) : {};

const END = "<|endoftext|>";

const plainToken = (token: AddedToken) => ({ ...token, lstrip: false, rstrip: false, single_word: false });

/** Reads which tokens begin, end and pad a text, and which others are special: only transformers needs to know, after an export. */
async function withRoles(tokenizer: Tokenizer, folder: string): Promise<Tokenizer> {
  const roles: Record<string, unknown> = {};
  for (const name of ROLES) Object.assign(roles, await beside(folder, name));
  const template = `${folder}/chat_template.jinja`;
  if (await exists(template)) roles.chat_template = new TextDecoder().decode(await readBytes(template));
  return giveRoles(tokenizer, roles);
}

/** Of a role's tokens those that the tokenizer has go into its `toJSON`, and the chat template. */
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
  if (tokenizer instanceof BytePairTokenizer) { // as withSpecialTokens, without making its tables again
    Object.assign(tokenizer.tables.json, chatJson({ roles: some, chatTemplate }, {}));
    return tokenizer;
  }
  return some || chatTemplate !== undefined
    ? tokenizer.withSpecialTokens([], { roles: some, chatTemplate })
    : tokenizer;
}

/** Older files have several templates, each with a name. */
function templateOf(given: unknown): string | undefined {
  const named = Array.isArray(given) ? given.find((one) => isObject(one) && one.name === "default") : undefined;
  const template = named?.template ?? given;
  return typeof template === "string" ? template : undefined;
}

/**
 * What `tokenizer_config.json` says of added tokens.
 *
 * @throws {CheckpointError} when it asks for tokens around a text, or a space before it
 */
async function readConfig(folder: string): Promise<AddedToken[]> {
  const path = `${folder}/tokenizer_config.json`, config = await beside(folder, "tokenizer_config.json");
  const { added_tokens_decoder = {} } = config;
  for (const name of ["add_prefix_space", "add_bos_token", "add_eos_token"]) {
    if (config[name]) throw new CheckpointError(`${path}: ${name} is true, which is not read here`);
  }
  if (!isObject(added_tokens_decoder)) {
    throw new CheckpointError(`${path} is damaged: added_tokens_decoder is no object`);
  }
  const tokens = Object.entries(added_tokens_decoder).map(([id, token]) =>
    isObject(token) ? { id: Number(id), ...token } : token
  );
  return parseAdded(tokens, path);
}
