/**
 * GPT-2's letters for bytes (`bytes_to_unicode` in its encoder.py), in which its vocabulary is written. A printable
 * byte is written as its own character; every other byte is one of the characters 256, 257, … Byte sequences are
 * strings here, in which each byte is the character with that number.
 */

let others = 256;
const letterOfByte = Array.from({ length: 256 }, (_, byte) => {
  const printable = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
  return String.fromCharCode(printable ? byte : others++);
});
const byteOfLetter = new Map(letterOfByte.map((letter, byte) => [letter, String.fromCharCode(byte)]));

/** Converts bytes to GPT-2's letters. */
export function bytesInLetters(bytes: string): string {
  return Array.from(bytes, (byte) => letterOfByte[byte.charCodeAt(0)]).join("");
}

/** Converts GPT-2's letters to bytes; an empty string if a character is not one of the letters. */
export function letterBytes(token: string): string {
  let bytes = "";
  for (const letter of token) {
    const byte = byteOfLetter.get(letter);
    if (byte === undefined) return "";
    bytes += byte;
  }
  return bytes;
}
