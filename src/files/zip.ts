/**
 * Reads zip archives, the container of torch.save (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), in
 * ranges.
 *
 *     records, each after its header · directory (name, position, sizes, CRC-32 of each record) · end record
 *
 * The directory is read and checked when an archive is opened, a record when it is read. These are errors: records that
 * overlap each other or the directory, two records of one name, names that lead out of a folder, and contents that
 * inflate to more bytes than the directory says. The CRC-32 of a record is checked before its last byte is returned.
 *
 * Not supported: encryption, archives in several parts, and compressions other than deflate.
 */
import { CheckpointError } from "../errors.ts";
import { crc32 } from "./crc32.ts";
import { InputFile, owned, Turns } from "./files.ts";
import { decode, DEFLATED, ENCRYPTED, type Entry, readDirectory, type ZipEntry } from "./zip_directory.ts";

/** The maximum size of an inflated record in bytes. The whole record is in memory. */
const MAX_INFLATED = 2 ** 30;
const LOCAL = 0x04034b50;

/** An open zip archive. */
export class ZipFile implements Disposable {
  readonly #file: InputFile;
  /** Runs reads one after the other, because each read updates the CRC-32 of its record. */
  readonly #turns = new Turns();
  /** The record that was inflated last. It is stored because the caller may read a record in parts. */
  #inflated: { readonly entry: Entry; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  private constructor(
    readonly path: string,
    readonly entries: ReadonlyMap<string, ZipEntry>,
    file: InputFile,
  ) {
    this.#file = file;
  }

  /** @throws {CheckpointError} when the file is missing, truncated or not a zip archive, or its directory is not valid */
  static async open(path: string): Promise<ZipFile> {
    const opened = async (file: InputFile) => new ZipFile(path, await readDirectory(file), file);
    return await owned(await InputFile.open(path), opened);
  }

  /**
   * Reads a whole record.
   *
   * @param options.limit the maximum size that is accepted, in bytes
   * @throws {CheckpointError} when there is no record of this name, or it is too large or damaged
   */
  async read(name: string, { limit = MAX_INFLATED }: { limit?: number } = {}): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    if (entry.size > limit) throw this.#damaged(`${name} has ${entry.size} bytes, more than the limit of ${limit}`);
    const bytes = new Uint8Array(entry.size);
    await this.readInto(name, 0, bytes);
    return bytes;
  }

  /**
   * Fills `bytes` with a record's contents from `begin` on. If calls read a record from its start to its end in order,
   * the CRC-32 is checked at the end. Otherwise the whole record is checked first, once.
   *
   * @throws {CheckpointError} when there is no record of this name, or it is too short or damaged
   */
  readInto(name: string, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#turns.take(() => this.#readInto(name, begin, bytes));
  }

  async #readInto(name: string, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const entry = this.#entry(name), end = begin + bytes.length;
    if (end > entry.size) throw this.#damaged(`${name} has ${entry.size} bytes, but byte ${end} was requested`);
    if (entry.method === DEFLATED) return void bytes.set((await this.#inflate(entry)).subarray(begin, end));
    if (begin !== entry.checked) await this.#verify(name);
    await this.#readAt(entry, begin, bytes);
    if (begin === entry.checked) this.#check(entry, bytes);
  }

  /** Checks the CRC-32 of a record, unless it was checked before. @throws {CheckpointError} when it differs */
  verify(name: string): Promise<void> {
    return this.#turns.take(() => this.#verify(name));
  }

  async #verify(name: string): Promise<void> {
    const entry = this.#entry(name);
    if (entry.method === DEFLATED) return; // the CRC-32 is checked whenever the record is inflated
    const block = new Uint8Array(Math.min(entry.size - entry.checked, 2 ** 20));
    while (entry.checked < entry.size) {
      const bytes = block.subarray(0, Math.min(block.length, entry.size - entry.checked));
      await this.#readAt(entry, entry.checked, bytes);
      this.#check(entry, bytes);
    }
  }

  /** Adds the next bytes of a record to its CRC-32, and compares the CRC-32 at the end of the record. */
  #check(entry: Entry, bytes: Uint8Array): void {
    let sum = entry.sum;
    const step = 2 ** 30; // some versions of zlib do not take more bytes at once
    for (let at = 0; at < bytes.length; at += step) sum = crc32(bytes.subarray(at, at + step), sum);
    if (entry.checked + bytes.length === entry.size && sum !== entry.crc) throw this.#mismatch(entry);
    entry.checked += bytes.length;
    entry.sum = sum;
  }

  async #inflate(entry: Entry): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#inflated?.entry === entry) return this.#inflated.bytes;
    if (entry.size > MAX_INFLATED) {
      throw this.#damaged(`${entry.name} inflates to ${entry.size} bytes, more than the limit of ${MAX_INFLATED}`);
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

  /** Fills `bytes` from the file, starting `at` bytes after the record's header. */
  async #readAt(entry: Entry, at: number, bytes: Uint8Array): Promise<void> {
    entry.begin ??= await this.#contents(entry);
    if (await this.#file.fill(entry.begin + at, bytes) < bytes.length) {
      throw this.#damaged(`it ends within ${entry.name}`);
    }
  }

  /** Position of a record's contents. It is computed from the record's header, which must agree with the directory. */
  async #contents({ name, header, limit, packed, size, crc, method }: Entry): Promise<number> {
    const head = new Uint8Array(30), view = new DataView(head.buffer);
    await this.#file.fill(header, head);
    const nameLength = view.getUint16(26, true), begin = header + 30 + nameLength + view.getUint16(28, true);
    const text = new Uint8Array(nameLength);
    await this.#file.fill(header + 30, text);
    const flags = view.getUint16(6, true), later = (flags & 8) !== 0; // whether sizes and CRC are stored after the contents
    const agrees = (at: number, value: number) => later || [value, 0xffffffff].includes(view.getUint32(at, true));
    if (
      view.getUint32(0, true) !== LOCAL || view.getUint16(8, true) !== method || (flags & ENCRYPTED) !== 0 ||
      !agrees(14, crc) || !agrees(18, packed) || !agrees(22, size) || decode(text) !== name
    ) {
      throw this.#damaged(`the header of ${name} differs from the directory`);
    }
    if (begin + packed > limit) throw this.#damaged(`${name} overlaps the record or directory after it`);
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
    return this.#damaged(`the contents of ${name} do not match its checksum`);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}
