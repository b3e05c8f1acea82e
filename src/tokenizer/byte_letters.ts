/**
 * GPT-2's letters for bytes (`bytes_to_unicode` in its encoder.py), in which its vocabulary is written: printable ones stand for
 * themselves, the others are the characters 256, 257, … Bytes are strings here, each byte the character with its number.
 */

let others = 256;
const letterOfByte = Array.from({ length: 256 }, (_, byte) => {
  const printable = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
  return String.fromCharCode(printable ? byte : others++);
});
const byteOfLetter = new Map(letterOfByte.map((letter, byte) => [letter, String.fromCharCode(byte)]));

/** Writes bytes in GPT-2's letters. */
export function bytesInLetters(bytes: string): string {
  return Array.from(bytes, (byte) => letterOfByte[byte.charCodeAt(0)]).join("");
}

/** The bytes that letters stand for; nothing where one of them stands for none. */
export function letterBytes(token: string): string {
  let bytes = "";
  for (const letter of token) {
    const byte = byteOfLetter.get(letter);
    if (byte === undefined) return "";
    bytes += byte;
  }
  return bytes;
}
