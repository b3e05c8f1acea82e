/** CRC-32 as used by zip: the reflected polynomial 0xEDB88320 (PKWARE's APPNOTE, section 4.4.7). */

type Crc32 = (bytes: Uint8Array, before?: number) => number;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** @internal An implementation without zlib. It is eight times slower than zlib's. */
export const tableCrc32: Crc32 = (bytes, before = 0) => {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = crc >>> 8 ^ TABLE[(crc ^ bytes[i]) & 255];
  return ~crc >>> 0;
};

let chosen: Crc32 | undefined;

/**
 * Continues the checksum `before` with `bytes`, which may be at most 2 GiB. Uses zlib if available.
 */
export const crc32: Crc32 = (bytes, before) => {
  chosen ??= globalThis.process?.getBuiltinModule?.("node:zlib")?.crc32 ?? tableCrc32;
  return chosen(bytes, before);
};
