/**
 * GPT-2's letters for bytes (`bytes_to_unicode` in its encoder.py). GPT-2's vocabulary is written in these letters. A
 * printable byte is written as its own character; every other byte is one of the characters 256, 257, … In this file,
 * byte sequences are strings: each byte is the character with that code.
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
