/**
 * zip archives, read by ranges: the container of what torch.save writes (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT).
 *
 *     records, each behind a header of its own · directory (name, place, sizes, CRC-32) · end record
 *
 * The directory is read and checked at once, a record when it is asked for. What does not add up is refused: records that
 * overlap or reach into the directory, two of one name, names that lead out of a folder, and contents that inflate to more
 * than was announced. Contents are compared with their CRC-32 by the time that their last byte is given out.
 *
 * Left out: encryption, archives in several parts, and compressions other than deflate.
 */
import { CheckpointError } from "../errors.ts";
import { crc32 } from "./crc32.ts";
import { InputFile, owned, Turns } from "./files.ts";
import { decode, DEFLATED, ENCRYPTED, type Entry, readDirectory, type ZipEntry } from "./zip_directory.ts";

/** Bytes; what is inflated is in memory whole. */
const MAX_INFLATED = 2 ** 30;
const LOCAL = 0x04034b50;

/** A zip archive, open for reading. */
export class ZipFile implements Disposable {
  readonly #file: InputFile;
  /** Of reads: each takes its record's CRC-32 further. */
  readonly #turns = new Turns();
  /** The record that was inflated last: it may be asked for piece by piece. */
  #inflated: { readonly entry: Entry; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  private constructor(
    readonly path: string,
    readonly entries: ReadonlyMap<string, ZipEntry>,
    file: InputFile,
  ) {
    this.#file = file;
  }

  /** @throws {CheckpointError} when the file is missing, truncated, no zip archive, or one that does not add up */
  static async open(path: string): Promise<ZipFile> {
    const opened = async (file: InputFile) => new ZipFile(path, await readDirectory(file), file);
    return await owned(await InputFile.open(path), opened);
  }

  /**
   * All contents of a record.
   *
   * @param options.limit the most bytes that it may have
   * @throws {CheckpointError} when there is no such record, it is larger, or damaged
   */
  async read(name: string, { limit = MAX_INFLATED }: { limit?: number } = {}): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    if (entry.size > limit) throw this.#damaged(`${name} has ${entry.size} bytes, and at most ${limit} are read`);
    const bytes = new Uint8Array(entry.size);
    await this.readInto(name, 0, bytes);
    return bytes;
  }

  /**
   * Fills `bytes` with contents from `begin` on. Reading on from where the last call has ended compares the CRC-32 at the end
   * of the record; reading elsewhere compares it first, once.
   *
   * @throws {CheckpointError} when there is no such record, it is shorter, or damaged
   */
  readInto(name: string, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#turns.take(() => this.#readInto(name, begin, bytes));
  }

  async #readInto(name: string, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const entry = this.#entry(name), end = begin + bytes.length;
    if (end > entry.size) throw this.#damaged(`${name} has ${entry.size} bytes, and not those up to ${end}`);
    if (entry.method === DEFLATED) return void bytes.set((await this.#inflate(entry)).subarray(begin, end));
    if (begin !== entry.checked) await this.#verify(name);
    await this.#readAt(entry, begin, bytes);
    if (begin === entry.checked) this.#check(entry, bytes);
  }

  /** Compares all contents with their CRC-32, if that was not done. @throws {CheckpointError} when they are others */
  verify(name: string): Promise<void> {
    return this.#turns.take(() => this.#verify(name));
  }

  async #verify(name: string): Promise<void> {
    const entry = this.#entry(name);
    if (entry.method === DEFLATED) return; // compared whenever it is inflated
    const block = new Uint8Array(Math.min(entry.size - entry.checked, 2 ** 20));
    while (entry.checked < entry.size) {
      const bytes = block.subarray(0, Math.min(block.length, entry.size - entry.checked));
      await this.#readAt(entry, entry.checked, bytes);
      this.#check(entry, bytes);
    }
  }

  /** Takes the next contents into account. */
  #check(entry: Entry, bytes: Uint8Array): void {
    let sum = entry.sum;
    const step = 2 ** 30; // more at once is too much for some versions
    for (let at = 0; at < bytes.length; at += step) sum = crc32(bytes.subarray(at, at + step), sum);
    if (entry.checked + bytes.length === entry.size && sum !== entry.crc) throw this.#mismatch(entry);
    entry.checked += bytes.length;
    entry.sum = sum;
  }

  async #inflate(entry: Entry): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#inflated?.entry === entry) return this.#inflated.bytes;
    if (entry.size > MAX_INFLATED) {
      throw this.#damaged(`${entry.name} inflates to ${entry.size} bytes, and at most ${MAX_INFLATED} are read`);
    }
    const packed = new Uint8Array(entry.packed), bytes = new Uint8Array(entry.size);
    await this.#readAt(entry, 0, packed);
    let at = 0;
    try {
      const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      for await (const chunk of inflated) {
        if (at + chunk.length > bytes.length) {
          throw this.#damaged(`${entry.name} inflates to more than ${entry.size} bytes`);
        }
        bytes.set(chunk, at);
        at += chunk.length;
      }
    } catch (error) {
      throw error instanceof CheckpointError ? error : this.#damaged(`${entry.name} cannot be inflated`);
    }
    if (at < bytes.length) throw this.#damaged(`${entry.name} inflates to ${at} bytes, expected ${entry.size}`);
    if (crc32(bytes) !== entry.crc) throw this.#mismatch(entry);
    this.#inflated = { entry, bytes };
    return bytes;
  }

  /** Fills `bytes` with what stands in the file, from `at` on behind the record's header. */
  async #readAt(entry: Entry, at: number, bytes: Uint8Array): Promise<void> {
    entry.begin ??= await this.#contents(entry);
    if (await this.#file.fill(entry.begin + at, bytes) < bytes.length) {
      throw this.#damaged(`it ends within ${entry.name}`);
    }
  }

  /** Where a record's contents begin: its own header tells, and has to agree with the directory. */
  async #contents({ name, header, limit, packed, size, crc, method }: Entry): Promise<number> {
    const head = new Uint8Array(30), view = new DataView(head.buffer);
    await this.#file.fill(header, head);
    const nameLength = view.getUint16(26, true), begin = header + 30 + nameLength + view.getUint16(28, true);
    const text = new Uint8Array(nameLength);
    await this.#file.fill(header + 30, text);
    const flags = view.getUint16(6, true), later = (flags & 8) !== 0; // then sizes and CRC follow the contents
    const agrees = (at: number, value: number) => later || [value, 0xffffffff].includes(view.getUint32(at, true));
    if (
      view.getUint32(0, true) !== LOCAL || view.getUint16(8, true) !== method || (flags & ENCRYPTED) !== 0 ||
      !agrees(14, crc) || !agrees(18, packed) || !agrees(22, size) || decode(text) !== name
    ) {
      throw this.#damaged(`the header of ${name} is not what the directory says`);
    }
    if (begin + packed > limit) throw this.#damaged(`${name} reaches into what follows it`);
    return begin;
  }

  #entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry) return entry as Entry;
    throw new CheckpointError(`${this.path} has no record ${name}`);
  }
  #damaged(why: string): CheckpointError {
    return new CheckpointError(`${this.path} is damaged: ${why}`);
  }
  #mismatch({ name }: Entry): CheckpointError {
    return this.#damaged(`the contents of ${name} do not have its checksum`);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}
