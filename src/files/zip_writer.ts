/** zip archives as torch.save writes them: every record stored, its contents at a multiple of 64 bytes. See zip.ts. */
import { crc32 } from "./crc32.ts";

/** Where contents begin, in bytes: as far as the elements of any tensor need, and as PyTorch does. */
const ALIGNMENT = 64;
const VERSION = 45; // of the format: with 64-bit sizes
const UTF8 = 0x800, MIDNIGHT = 0, FIRST_DAY = 0x21; // 1 January 1980: the same contents make the same file
const NARROW = 0xffffffff; // "see the 64-bit field"

/** A record to be written. */
export interface ZipRecord {
  readonly name: string;
  /** Called once, when it is this record's turn. */
  readonly data: () => Uint8Array | Promise<Uint8Array>;
}

/**
 * The parts of an archive, one behind the other: for {@linkcode writeFile}. Sizes and places are always in their 64-bit
 * fields, as what does not fit into 32 bits has to be: so there is one way to write, and small archives test it.
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
    const filler = bytes(u16(0x4246, padding), new Uint8Array(padding)); // "FB", as PyTorch calls it
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

/** All of them, one behind the other. */
function bytes(...parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
