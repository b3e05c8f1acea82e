/**
 * Writes zip archives like torch.save: records are not compressed, and their contents begin at multiples of 64 bytes.
 * See zip.ts.
 */
import { crc32 } from "./crc32.ts";

/** Alignment of the contents of records in bytes, as in PyTorch. It is sufficient for elements of any type. */
const ALIGNMENT = 64;
const VERSION = 45; // the version of the zip format that introduced 64-bit sizes
const UTF8 = 0x800, MIDNIGHT = 0, FIRST_DAY = 0x21; // always 1 January 1980, so that equal contents give equal files
const NARROW = 0xffffffff; // in a 32-bit field: the value is in the 64-bit field

/** A record to write. */
export interface ZipRecord {
  readonly name: string;
  /** Called once, when the record is written. */
  readonly data: () => Uint8Array | Promise<Uint8Array>;
}

/**
 * The parts of an archive in order, for {@linkcode writeFile}. Sizes and positions are always written in 64-bit fields,
 * although only large archives need them. So tests with small archives cover large archives, too.
 */
export async function* zipParts(records: Iterable<ZipRecord>): AsyncGenerator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, data } of records) {
    const text = new TextEncoder().encode(name), contents = await data(), size = contents.length;
    let crc = 0;
    for (let from = 0; from < size; from += 2 ** 30) crc = crc32(contents.subarray(from, from + 2 ** 30), crc);
    const common = [u16(VERSION, UTF8, 0, MIDNIGHT, FIRST_DAY), u32(crc, NARROW, NARROW), u16(text.length)];
    const unpadded = at + 30 + text.length + 20 + 4, padding = -unpadded & (ALIGNMENT - 1);
    const sizes = bytes(u16(1, 16), u64(size, size));
    const filler = bytes(u16(0x4246, padding), new Uint8Array(padding)); // "FB" is PyTorch's id for padding
    const header = bytes(u32(0x04034b50), ...common, u16(sizes.length + filler.length), text, sizes, filler);
    const places = bytes(u16(1, 24), u64(size, size, at));
    directory.push(
      bytes(u32(0x02014b50), u16(VERSION), ...common, u16(places.length, 0, 0, 0), u32(0, NARROW), text, places),
    );
    yield header;
    yield contents;
    at += header.length + size;
  }
  const entries = bytes(...directory), count = directory.length, end = at + entries.length;
  yield entries;
  yield bytes(u32(0x06064b50), u64(44), u16(VERSION, VERSION), u32(0, 0), u64(count, count, entries.length, at));
  yield bytes(u32(0x07064b50, 0), u64(end), u32(1));
  yield bytes(u32(0x06054b50), u16(0, 0, 0xffff, 0xffff), u32(NARROW, NARROW), u16(0));
}

const u16 = (...values: number[]): Uint8Array => new Uint8Array(Uint16Array.from(values).buffer);
const u32 = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const u64 = (...values: number[]): Uint8Array => new Uint8Array(BigUint64Array.from(values, BigInt).buffer);

/** Concatenates arrays. */
function bytes(...parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
