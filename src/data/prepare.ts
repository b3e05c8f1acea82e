/**
 * Encodes a text into files of tokens, like nanoGPT's `data/NAME/prepare.py`: the first 90 % of the characters become
 * `train.bin`, the rest `val.bin`.
 *
 * The text may be larger than memory. It is cut into ranges, which workers encode; cuts are made only where they do not
 * change the tokens. The ids are written to files called NAME.part, and `prepare.json` records the progress. So an
 * interrupted preparation can be continued. Until a preparation is complete, the folder contains the token files of the
 * previous preparation, if there was one.
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

/** Options of {@linkcode prepare}. */
export interface PrepareOptions extends EncodeOptions {
  /** Path of a text file. */
  readonly input: string;
  /** Folder to write to. */
  readonly outDir: string;
  /** A tokenizer, or `"character"` for a new one with a token for each character that occurs in the text. */
  readonly tokenizer: Tokenizer | "character";
  /** Number of workers that encode. Default: one per processor. */
  readonly threads?: number;
  /** Stops the preparation after the current ranges; calling `prepare` again with the same options continues it. */
  readonly signal?: AbortSignal;
}

/** Progress of a preparation. */
export interface PrepareProgress {
  /** The current pass: the text is read once to count characters and once to encode them. */
  readonly doing: "counting" | "encoding";
  /** Bytes of the text that this pass has completed. */ readonly done: number;
  /** Bytes of the text. */ readonly total: number;
  /** Bytes that an interrupted preparation had already encoded. */ readonly before: number;
}

/** The result of {@linkcode prepare}. */
export interface Prepared {
  /** Number of tokens in train.bin. */ readonly train: number;
  /** Number of tokens in val.bin. */ readonly val: number;
  /** Vocabulary size of the tokenizer. */ readonly vocabSize: number;
  /** Type of the ids in both files. */ readonly type: TokenType;
}

const PARTS = ["train", "val"] as const;
/** Bytes of text that a worker encodes at a time; milliseconds between two saves of the progress. */
const RANGE = 1 << 20, NOTE_INTERVAL = 2000;

/** The saved progress of a preparation. */
interface State {
  /** The text, the tokenizer and the options: if one of them differs, the preparation starts from the beginning. */
  readonly of: unknown;
  readonly tokenizer: Record<string, unknown>;
  readonly vocabSize: number;
  readonly type: TokenType;
  /** Byte of the text at which the validation part begins. */
  readonly cut: number;
  /** Number of bytes of the text that have been encoded. */
  at: number;
  /** Number of tokens written to train.bin.part. */
  train: number;
  /** Number of tokens written to val.bin.part. */
  val: number;
}

/**
 * Encodes a text into a folder of tokens and yields its progress.
 *
 * @returns the sizes of what was written; undefined if the signal stopped the preparation
 * @throws {DataError} when the text cannot be read or encoded, the folder cannot be written, or another process
 * prepares a text in it
 */
export async function* prepare(options: PrepareOptions): AsyncGenerator<PrepareProgress, Prepared | undefined, void> {
  const { outDir } = options;
  using text = TextFile.open(options.input);
  const refuse = (error: unknown) => new DataError(`Cannot write to ${outDir}: ${reason(error)}`);
  using _ = await Lock.take(outDir).catch((error) => { // two preparations in one folder would mix their tokens
    throw refuse(error);
  });
  const state = await resumed(text, options) ?? (yield* begin(text, options));
  if (!state) return;
  try {
    if (!(yield* encode(text, state, options))) return;
    await finish(state, outDir);
  } catch (error) {
    if (error instanceof DataError) { // the text has an error, so continuing the preparation would fail again
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

/** Special and added tokens that contain a place where `CUT` allows a cut. A range must not end within such a token. */
function cuttable(tokenizer: Tokenizer | "character"): string[] {
  if (!(tokenizer instanceof BytePairTokenizer)) return [];
  return [...tokenizer.specialTokens.keys(), ...tokenizer.addedTokens.keys()].filter((token) => CUT.test(token));
}

/** The values that determine the tokens of a preparation: the text, the tokenizer and the options. */
function subject({ path, size, modified }: TextFile, { tokenizer, allowedSpecial, disallowedSpecial }: PrepareOptions) {
  const special = [allowedSpecial, disallowedSpecial].map((tokens) => tokens && [...tokens]);
  return { path, size, modified, special, tokenizer: tokenizer === "character" ? tokenizer : tokenizer.toJSON() };
}

/** The saved state of an interrupted preparation, if it has the same text and options and its files are long enough. */
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

/** Starts a new preparation: counts the text's characters to find where the validation part begins. */
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
  if (cut === 0) throw new DataError(`${text.path} is too short: it needs at least two characters`);
  const tokenizer = options.tokenizer === "character" ? new CharacterTokenizer(vocabulary!) : options.tokenizer;
  const { vocabSize } = tokenizer, type = tokenType(vocabSize);
  return { of: subject(text, options), tokenizer: tokenizer.toJSON(), vocabSize, type, cut, at: 0, train: 0, val: 0 };
}

/** Encodes the rest of the text. @returns whether the whole text is encoded */
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
      ids.catch(() => {}); // the promise is awaited later, unless an earlier range fails
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

/** The two token files that are being written, and the file with their progress. */
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

  /** Saves the progress, after the tokens have reached the disk. */
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
