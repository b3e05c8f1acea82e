/** Reads and checks the directory of a zip archive. See zip.ts. */
import { CheckpointError } from "../errors.ts";
import type { InputFile } from "./files.ts";
import { shown } from "./shown.ts";

/** Deflate compresses at most 1032 bytes to one byte. */
const MAX_RATIO = 1032;
const MAX_DIRECTORY = 2 ** 26; // bytes
const MAX_NAME = 300;
const END = 0x06054b50, END_64 = 0x06064b50, LOCATOR_64 = 0x07064b50, DIRECTORY = 0x02014b50;
const STORED = 0;
/** Number of the compression method deflate. */
export const DEFLATED = 8;
/** Flags of encrypted records, which are not supported. */
export const ENCRYPTED = 0x2041;

/** A record in the directory. */
export interface ZipEntry {
  readonly name: string;
  /** Size of the record's contents, in bytes. */
  readonly size: number;
}
/** A record, with the values that are needed to read it. */
export interface Entry extends ZipEntry {
  /** Number of the compression method. */
  readonly method: number;
  /** Compressed size in bytes, without the header. */
  readonly packed: number;
  readonly crc: number;
  /** Position of the record's header. */
  readonly header: number;
  /** Position of the next record, or of the directory. */
  limit: number;
  /** Position of the record's contents; undefined until the record's header is read. */
  begin?: number;
  /** Number of bytes that were read and added to the CRC-32. */
  checked: number;
  /** CRC-32 of the first `checked` bytes. */
  sum: number;
}

export async function readDirectory(file: InputFile): Promise<Map<string, Entry>> {
  const refuse = (why: string) => new CheckpointError(`${file.path} is damaged: ${why}`);
  const { begin, end, count } = await findDirectory(file, refuse);
  if (end - begin > MAX_DIRECTORY) throw refuse(`its directory has ${end - begin} bytes`);
  const bytes = new Uint8Array(end - begin), view = new DataView(bytes.buffer), entries = new Map<string, Entry>();
  await file.fill(begin, bytes);
  let at = 0;
  while (at < bytes.length) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== DIRECTORY) throw refuse("its directory is not valid");
    const nameEnd = at + 46 + view.getUint16(at + 28, true), extraEnd = nameEnd + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > bytes.length) throw refuse("its directory is truncated");
    const name = decode(bytes.subarray(at + 46, nameEnd));
    if (!isPlain(name)) throw refuse(`"${shown(name)}" is not a valid name of a record`);
    if (entries.has(name)) throw refuse(`${name} occurs twice`);
    const method = view.getUint16(at + 10, true), crc = view.getUint32(at + 16, true);
    if ((view.getUint16(at + 8, true) & ENCRYPTED) !== 0) throw refuse(`${name} is encrypted`);
    if (method !== STORED && method !== DEFLATED) {
      throw refuse(`${name} has compression method ${method}, expected 0 or 8`);
    }
    const [size, packed, header] = places(view, at, nameEnd, extraEnd);
    const limit = begin, least = header + 30 + (nameEnd - at - 46) + packed;
    if (!(least <= limit)) throw refuse(`${name} is not before the directory`);
    if (method === STORED && packed !== size) {
      throw refuse(`${name} is not compressed, but has two sizes, ${packed} and ${size}`);
    }
    if (size > MAX_RATIO * packed) throw refuse(`${name} cannot inflate from ${packed} to ${size} bytes`);
    entries.set(name, { name, size, method, packed, crc, header, limit, checked: 0, sum: 0 });
    at = next;
  }
  if (entries.size !== count) throw refuse(`its directory has ${entries.size} records, expected ${count}`);
  const ordered = [...entries.values()].sort((a, b) => a.header - b.header);
  for (let i = 1; i < ordered.length; i++) {
    const before = ordered[i - 1], { name, header } = ordered[i];
    before.limit = header;
    if (before.header + 30 + before.packed > header) throw refuse(`${before.name} and ${name} overlap`);
  }
  return entries;
}

/**
 * Finds the directory from the end record, which is at the end of the file before an optional comment, or from its
 * 64-bit version.
 */
async function findDirectory(file: InputFile, refuse: (why: string) => CheckpointError) {
  const { path, size } = file, tail = new Uint8Array(Math.min(size, 22 + 0xffff));
  const start = size - tail.length, view = new DataView(tail.buffer);
  await file.fill(start, tail);
  let at = tail.length - 22;
  while (at >= 0 && !(view.getUint32(at, true) === END && at + 22 + view.getUint16(at + 20, true) === tail.length)) {
    at--;
  }
  if (at < 0) throw new CheckpointError(`${path} is truncated or not a zip archive: it has no end record`);
  let count = view.getUint16(at + 10, true),
    length = view.getUint32(at + 12, true),
    begin = view.getUint32(at + 16, true);
  let end = start + at, parts = view.getUint32(at + 4, true);
  if (at >= 20 && view.getUint32(at - 20, true) === LOCATOR_64) {
    const record = new Uint8Array(56), wide = new DataView(record.buffer);
    end = u64(view, at - 12);
    if (!(end + 56 <= start + at - 20)) throw refuse("its end record is not where it should be");
    await file.fill(end, record);
    if (wide.getUint32(0, true) !== END_64 || end + 12 + u64(wide, 4) !== start + at - 20) {
      throw refuse("its end record is not where it should be");
    }
    [count, length, begin, parts] = [u64(wide, 32), u64(wide, 40), u64(wide, 48), wide.getUint32(16, true)];
  }
  if (parts !== 0) throw refuse("it is one of several parts");
  if (begin + length !== end) throw refuse("its directory is not where it should be");
  return { begin, end, count };
}

/**
 * The numbers in a record's directory entry: size, compressed size and position of the record's header. A number that
 * does not fit into 32 bits is in an extra field.
 */
function places(view: DataView, at: number, nameEnd: number, extraEnd: number): number[] {
  const narrow = [24, 20, 42].map((offset) => view.getUint32(at + offset, true));
  let field = nameEnd;
  while (field + 4 <= extraEnd && view.getUint16(field, true) !== 1) field += 4 + view.getUint16(field + 2, true);
  const end = field + 4 <= extraEnd ? Math.min(extraEnd, field + 4 + view.getUint16(field + 2, true)) : field;
  field += 4;
  return narrow.map((value) => {
    if (value !== 0xffffffff || field + 8 > end) return value;
    field += 8;
    return u64(view, field - 8);
  });
}

/** Reads a u64. A value that a number cannot hold exactly becomes Infinity, which no check accepts. */
function u64(view: DataView, at: number): number {
  const value = Number(view.getBigUint64(at, true));
  return Number.isSafeInteger(value) ? value : Infinity;
}

/** Decodes UTF-8 without removing a byte-order mark. */
export const decode = (bytes: Uint8Array): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

/**
 * Whether a record's name is valid. Names are never used as paths, but names that lead out of a folder are rejected
 * nevertheless.
 */
const isPlain = (name: string): boolean =>
  name !== "" && name.length <= MAX_NAME && !/[\p{Cc}\\\ufffd]|^\/|^[A-Za-z]:/u.test(name) &&
  !name.split("/").includes("..");
