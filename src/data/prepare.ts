/**
 * Text to tokens, as nanoGPT's `data/NAME/prepare.py`: the first nine tenths of the characters become `train.bin`, the rest
 * `val.bin`.
 *
 * The text may be larger than memory. It is cut into ranges at places where no token is cut, which workers encode. The ids go into
 * files called NAME.part, beside which `prepare.json` says how far they have come; so an interrupted preparation goes on from
 * there, and whoever reads the folder meanwhile finds the files of the one before, or none.
 */
import { exists, readJson, replaceFile, syncDirectory, writeAll } from "../files/files.ts";
import { Lock } from "../files/locks.ts";
import { writeMetaPkl } from "../tokenizer/meta_pkl.ts";
import { DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { BytePairTokenizer } from "../tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../tokenizer/character.ts";
import { CUT } from "../tokenizer/patterns.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { TokenMeta } from "./data_folder.ts";
import { EncodePool } from "./encode_pool.ts";
import { TextFile } from "./text_file.ts";
import { tokenBytes, type TokenType, tokenType } from "./tokens.ts";
import { system, type SystemFile } from "../files/system.ts";

/** How {@linkcode prepare} encodes, and where it writes. */
export interface PrepareOptions extends EncodeOptions {
  /** Path of a text file. */
  readonly input: string;
  /** The folder to write to. */
  readonly outDir: string;
  /** `"character"` is one token for each of the text's characters. */
  readonly tokenizer: Tokenizer | "character";
  /** Workers that encode; one for each processor unless given. */
  readonly threads?: number;
  /** Stops between two ranges; the same call goes on later. */
  readonly signal?: AbortSignal;
}

/** How far a preparation is. */
export interface PrepareProgress {
  /** Which of two passes over the text it is in. */ readonly doing: "counting" | "encoding";
  /** Bytes of the text that are done, of so many. */ readonly done: number;
  /** Bytes of the text. */ readonly total: number;
  /** Bytes that an interrupted preparation had done. */ readonly before: number;
}

/** What was written. */
export interface Prepared {
  /** Tokens. */ readonly train: number;
  /** Tokens in val.bin. */ readonly val: number;
  /** Of the tokenizer. */ readonly vocabSize: number;
  /** Of the ids in both files. */ readonly type: TokenType;
}

const PARTS = ["train", "val"] as const;
/** Bytes of text that a worker encodes at a time, and milliseconds from one note of how far it has come to the next. */
const RANGE = 1 << 20, NOTE_INTERVAL = 2000;

/** How far a preparation has come. */
interface State {
  /** What it is of: another text, tokenizer or treatment of special tokens begins anew. */
  readonly of: unknown;
  readonly tokenizer: Record<string, unknown>;
  readonly vocabSize: number;
  readonly type: TokenType;
  /** The byte at which `val` begins. */
  readonly cut: number;
  /** Bytes that are encoded, and the tokens in the files. */
  at: number;
  train: number;
  val: number;
}

/**
 * Prepares a text for training, and yields how far it has come.
 *
 * @returns what was written; nothing where the signal has stopped it
 * @throws {DataError} when the text cannot be read or encoded, or the folder not be written, or another process prepares a text in it
 */
export async function* prepare(options: PrepareOptions): AsyncGenerator<PrepareProgress, Prepared | undefined, void> {
  const { outDir } = options;
  using text = TextFile.open(options.input);
  const refuse = (error: unknown) => new DataError(`Cannot write to ${outDir}: ${reason(error)}`);
  using _ = await Lock.take(outDir).catch((error) => { // two texts in one folder would become a mixture
    throw refuse(error);
  });
  const state = await resumed(text, options) ?? (yield* begin(text, options));
  if (!state) return;
  try {
    if (!(yield* encode(text, state, options))) return;
    await finish(state, outDir);
  } catch (error) {
    if (error instanceof DataError) { // of the text, which the next attempt would meet too
      for (const name of ["prepare.json", "train.bin.part", "val.bin.part"]) {
        await system.remove(`${outDir}/${name}`).catch(() => {});
      }
      throw error;
    }
    throw refuse(error);
  }
  const { train, val, vocabSize, type } = state;
  return { train, val, vocabSize, type };
}

/** The tokens that `CUT` would cut: a range must not end within one. */
function cuttable(tokenizer: Tokenizer | "character"): string[] {
  if (!(tokenizer instanceof BytePairTokenizer)) return [];
  return [...tokenizer.specialTokens.keys(), ...tokenizer.addedTokens.keys()].filter((token) => CUT.test(token));
}

/** What a preparation is of. */
function subject({ path, size, modified }: TextFile, { tokenizer, allowedSpecial, disallowedSpecial }: PrepareOptions) {
  const special = [allowedSpecial, disallowedSpecial].map((tokens) => tokens && [...tokens]);
  return { path, size, modified, special, tokenizer: tokenizer === "character" ? tokenizer : tokenizer.toJSON() };
}

/** The state of an interrupted preparation of the same, if what it says is there. */
async function resumed(text: TextFile, options: PrepareOptions): Promise<State | undefined> {
  const path = `${options.outDir}/prepare.json`;
  if (!await exists(path)) return;
  const state = await readJson(path).catch(() => undefined) as State | undefined;
  if (!state || JSON.stringify(state.of) !== JSON.stringify(subject(text, options))) return;
  for (const part of PARTS) {
    const { size } = await system.stat(`${options.outDir}/${part}.bin.part`).catch(() => ({ size: -1 }));
    if (size < state[part] * tokenBytes[state.type]) return;
  }
  return state;
}

/** Counts the text. */
async function* begin(
  text: TextFile,
  options: PrepareOptions,
): AsyncGenerator<PrepareProgress, State | undefined, void> {
  const counting = text.count({ vocabulary: options.tokenizer === "character" });
  let next;
  for (next = await counting.next(); !next.done; next = await counting.next()) {
    yield { doing: "counting", done: next.value, total: text.size, before: 0 };
    if (options.signal?.aborted) return;
  }
  const { cut, vocabulary } = next.value;
  if (cut === 0) throw new DataError(`${text.path} is too short: nine tenths of it are no character`);
  const tokenizer = options.tokenizer === "character" ? new CharacterTokenizer(vocabulary!) : options.tokenizer;
  const { vocabSize } = tokenizer, type = tokenType(vocabSize);
  return { of: subject(text, options), tokenizer: tokenizer.toJSON(), vocabSize, type, cut, at: 0, train: 0, val: 0 };
}

/** Encodes what is left of the text. @returns whether all of it is done */
async function* encode(
  text: TextFile,
  state: State,
  { outDir, signal, threads = navigator.hardwareConcurrency, tokenizer: asked, allowedSpecial, disallowedSpecial }:
    PrepareOptions,
): AsyncGenerator<PrepareProgress, boolean, void> {
  const { tokenizer, cut, type } = state, before = state.at, whole = cuttable(asked);
  const setup = { path: text.path, tokenizer, type, options: { allowedSpecial, disallowedSpecial } };
  using files = new PartFiles(outDir, state), pool = new EncodePool(threads, setup);
  const pending: { part: typeof PARTS[number]; end: number; ids: Promise<Uint8Array> }[] = [];
  for (let next = before, noted = performance.now(); !signal?.aborted || pending.length > 0;) {
    while (next < text.size && pending.length < 2 * threads && !signal?.aborted) {
      const part = next < cut ? "train" : "val", limit = next < cut ? cut : text.size;
      const end = text.nextCut(Math.min(next + RANGE, limit), limit, whole), ids = pool.encode({ begin: next, end });
      ids.catch(() => {}); // it is awaited later, and an earlier one may fail before
      pending.push({ part, end, ids });
      next = end;
    }
    const oldest = pending.shift();
    if (!oldest) break;
    const { part, end } = oldest, ids = await oldest.ids;
    await files.write(part, ids);
    state[part] += ids.length / tokenBytes[type];
    state.at = end;
    yield { doing: "encoding", done: end, total: text.size, before };
    if (performance.now() - noted < NOTE_INTERVAL) continue;
    await files.note();
    noted = performance.now();
  }
  await files.note();
  return state.at === text.size;
}

/** The files of tokens that are being written, and the note of how far they have come. */
class PartFiles implements Disposable {
  readonly #files: Record<typeof PARTS[number], SystemFile>;

  constructor(readonly folder: string, readonly state: State) {
    const open = (part: typeof PARTS[number]) => {
      const file = system.openSync(`${folder}/${part}.bin.part`, { write: true, create: true });
      file.truncateSync(state[part] * tokenBytes[state.type]);
      file.seekSync(0, 2);
      return file;
    };
    this.#files = { train: open("train"), val: open("val") };
  }

  write(part: typeof PARTS[number], ids: Uint8Array): Promise<void> {
    return writeAll(this.#files[part], ids);
  }

  /** The tokens are on the disk before the note says so. */
  async note(): Promise<void> {
    for (const file of Object.values(this.#files)) await file.sync();
    await replaceJson(`${this.folder}/prepare.json`, this.state);
  }

  [Symbol.dispose](): void {
    for (const file of Object.values(this.#files)) file.close();
  }
}

async function finish({ tokenizer, vocabSize, type }: State, folder: string): Promise<void> {
  for (const part of PARTS) await system.rename(`${folder}/${part}.bin.part`, `${folder}/${part}.bin`);
  await replaceJson(`${folder}/meta.json`, { tokenizer, vocab_size: vocabSize, dtype: type } satisfies TokenMeta);
  const pickle = `${folder}/meta.pkl`; // for nanoGPT itself
  if (tokenizer.type === "character") await writeMetaPkl(pickle, CharacterTokenizer.fromJSON(tokenizer));
  else if (await exists(pickle)) await system.remove(pickle);
  await system.remove(`${folder}/prepare.json`);
  await syncDirectory(folder);
}

function replaceJson(path: string, value: unknown): Promise<void> {
  return replaceFile(path, [new TextEncoder().encode(JSON.stringify(value) + "\n")]);
}
