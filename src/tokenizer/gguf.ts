/**
 * Reads and writes tokenizers in the metadata of GGUF files: byte pairs with GPT-2's pattern, and characters, which are
 * stored as byte pairs without merges.
 */
import { CheckpointError, ConfigError } from "../errors.ts";
import type { GgufFile, GgufValue, WritableValue } from "../files/gguf.ts";
import { shown, some } from "../files/shown.ts";
import { bytesInLetters, letterBytes } from "./byte_letters.ts";
import { BytePairTokenizer } from "./byte_pair.ts";
import { CharacterTokenizer, visible } from "./character.ts";
import { giveRoles } from "./load.ts";
import { R50K } from "./patterns.ts";
import { rolesOf, vocabularyAndMerges } from "./to_hugging_face.ts";
import { beginning, type Tokenizer } from "./tokenizer.ts";
import { type AddedToken, bytePairTokenizer, parsePairs } from "./vocab_and_merges.ts";

/**
 * The types of tokens: NORMAL is bytes in GPT-2's letters, CONTROL a special token, USER_DEFINED an added token, which
 * is always recognised, and UNUSED an id without a token.
 */
const NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5;
/** transformers' names of special tokens, and the names of their ids in GGUF. */
const ROLES = { bos_token: "bos", eos_token: "eos", unk_token: "unknown", pad_token: "padding" };
const PREFIX = "tokenizer.ggml.", TEMPLATE = "tokenizer.chat_template", END = "<|endoftext|>";

/**
 * Reads the tokenizer of a GGUF file.
 *
 * @throws {CheckpointError} when the tokenizer is damaged or its kind is not supported; the message names the kind
 */
export function ggufTokenizer({ path, metadata }: Pick<GgufFile, "path" | "metadata">): Tokenizer {
  const said = (name: string) => metadata.get(PREFIX + name)?.value;
  const damaged = (why: string) => new CheckpointError(`${path} is damaged: ${why}`);
  for (const [name, right] of Object.entries({ model: "gpt2", pre: "gpt-2" })) {
    const value = said(name);
    if (value === right || name === "pre" && value === undefined) continue; // older files have no `pre`
    throw new CheckpointError(
      `${path}: ${PREFIX}${name} is ${shown(`${value}`)}; supported is ${right}, byte pairs with GPT-2's pattern`,
    );
  }
  for (const name of ["add_bos_token", "add_eos_token", "add_space_prefix"]) {
    if (said(name)) throw new CheckpointError(`${path}: ${PREFIX}${name} is true, which is not supported`);
  }
  const list = (name: string) => {
    const { type, value }: Partial<GgufValue> = metadata.get(PREFIX + name) ?? {};
    if (type === "string" && Array.isArray(value)) return value as string[];
    throw new CheckpointError(`${path} has no tokenizer: ${PREFIX}${name} is not a list of strings`);
  };
  const tokens = list("tokens"), merges = list("merges");
  const types = said("token_type") ?? tokens.map((token) => token === END ? CONTROL : NORMAL);
  if (!Array.isArray(types) || types.length !== tokens.length) {
    throw damaged(`${PREFIX}token_type is not a list of ${tokens.length} types, one per token`);
  }
  const vocab = new Map<string, number>(), added = new Map<string, AddedToken>();
  for (const [id, content] of tokens.entries()) {
    if (types[id] === UNUSED) continue;
    const special = types[id] === CONTROL;
    if (vocab.has(content) || added.has(content)) throw damaged(`two tokens are ${shown(JSON.stringify(content))}`);
    if (types[id] === NORMAL) vocab.set(content, id);
    else if (content && (special || types[id] === USER_DEFINED)) added.set(content, { content, id, special });
    else throw damaged(`token ${id}, ${shown(JSON.stringify(content))}, has the type ${types[id]}`);
  }
  const characters = [...vocab.keys()].map(letterBytes), more = [...added.values()];
  const alone = merges.length === 0 && characters.length > 0 &&
    characters.every((c, id) => isAscii(c) && c === letterBytes(tokens[id])) &&
    more.every(({ special, id }, i) => special && id === characters.length + i);
  const tables = { vocab: Object.fromEntries(vocab), merges: parsePairs(merges, path), added: more };
  const chat_template = metadata.get(TEMPLATE)?.value, roles: Record<string, unknown> = { chat_template };
  if (alone && more.length === 0 && chat_template === undefined) return new CharacterTokenizer(characters);
  for (const [role, name] of Object.entries(ROLES)) {
    const id = said(`${name}_token_id`);
    if (id === undefined) continue;
    if (typeof id !== "number" || !Object.hasOwn(tokens, id)) throw damaged(`${PREFIX}${name}_token_id is ${id}`);
    roles[role] = tokens[id];
  }
  return giveRoles(
    alone
      ? new CharacterTokenizer(characters, { special: more.map(({ content }) => content) })
      : bytePairTokenizer(tables, path),
    roles,
  );
}

/**
 * Converts a tokenizer to metadata of a GGUF file.
 *
 * @param rows vocabulary size of the model; ids without a token are marked as unused
 * @param options.onNote called with a line of text if the tokenizer has information that a GGUF file cannot store
 * @throws {ConfigError} when the format does not support the tokenizer; the message says why
 */
export function toGgufTokenizer(
  tokenizer: Tokenizer,
  rows: number,
  { onNote }: { onNote?: (line: string) => void } = {},
): [key: string, value: WritableValue][] {
  const { tokens, types, merges, roles } = tablesOf(tokenizer);
  if (tokens.length > rows) {
    throw new ConfigError(
      `GGUF needs a row of embeddings for each token: there are ${tokens.length} tokens, but ${rows} rows`,
    );
  }
  for (let id = 0; id < rows; id++) {
    tokens[id] ??= `[PAD${id}]`;
    types[id] ??= UNUSED;
  }
  const ids = new Map(tokens.map((token, id) => [token, id])), { eos_token, bos_token = eos_token } = roles;
  let end = ids.get(eos_token as string);
  if (end === undefined) {
    const unused = types.indexOf(UNUSED);
    end = unused < 0 ? beginning(tokenizer)[0] : unused;
    if (unused < 0) {
      onNote?.(
        `GGUF needs an end-of-text token, but this vocabulary has none: ${JSON.stringify(tokenizer.decode([end]))} ` +
          "is used. With --ignore-eos, llama.cpp does not stop at it",
      );
    }
  }
  const uint = (name: string, value: number): [string, WritableValue] => [name, { type: "uint32", value }];
  const own: [string, WritableValue][] = [
    ["model", { type: "string", value: "gpt2" }],
    ["pre", { type: "string", value: "gpt-2" }],
    ["tokens", { type: "string", value: tokens }],
    ["token_type", { type: "int32", value: types }],
    ["merges", { type: "string", value: merges }],
    uint("bos_token_id", ids.get(bos_token as string) ?? end),
    uint("eos_token_id", end),
    ["add_bos_token", { type: "bool", value: false }],
  ];
  for (const role of ["unk_token", "pad_token"] as const) {
    const id = ids.get(roles[role] as string);
    if (id !== undefined) own.push(uint(`${ROLES[role]}_token_id`, id));
  }
  const metadata = own.map(([name, value]): [string, WritableValue] => [PREFIX + name, value]);
  const { chat_template: template } = tokenizer.toJSON();
  return typeof template === "string" ? [...metadata, [TEMPLATE, { type: "string", value: template }]] : metadata;
}

interface Tables {
  readonly tokens: string[];
  readonly types: number[];
  readonly merges: readonly string[];
  /** Tokens that begin, end and pad a text, by transformers' names. */
  readonly roles: Readonly<Record<string, unknown>>;
}

function tablesOf(tokenizer: Tokenizer): Tables {
  if (tokenizer instanceof CharacterTokenizer) {
    const { characters } = tokenizer, wide = characters.filter((character) => !isAscii(character));
    if (wide.length === 0) {
      const special = [...tokenizer.specialTokens.keys()];
      return {
        tokens: [...characters.map(bytesInLetters), ...special],
        types: [...characters.map(() => NORMAL), ...special.map(() => CONTROL)],
        merges: [],
        roles: rolesOf(tokenizer),
      };
    }
    throw new ConfigError(
      `GGUF does not support this vocabulary of characters: its tokens are bytes, but ${some(wide.map(visible))} ` +
        "take several bytes each in UTF-8, for which the model has no tokens\n" +
        "A model of byte pairs (prepare --tokenizer=gpt2) or of ASCII characters can be saved",
    );
  }
  if (!(tokenizer instanceof BytePairTokenizer) || tokenizer.tables.pattern !== R50K) {
    throw new ConfigError("GGUF supports only tokenizers of ASCII characters or of byte pairs with GPT-2's pattern");
  }
  const tokens: string[] = [], types: number[] = [], { vocab, merges } = vocabularyAndMerges(tokenizer);
  const set = (entries: Iterable<readonly [string, number]>, type: number) => {
    for (const [token, id] of entries) [tokens[id], types[id]] = [token, type];
  };
  set(Object.entries(vocab), NORMAL);
  set(tokenizer.specialTokens, CONTROL);
  set(tokenizer.addedTokens, USER_DEFINED);
  return { tokens, types, merges, roles: rolesOf(tokenizer) };
}

const isAscii = (character: string): boolean => character.length === 1 && character < "\x80";
