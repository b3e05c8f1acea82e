/** Makes numbered mutants of GGUF files, and a checksum of a file's contents, which gguf_verdicts.py also computes. */
import { GgufFile } from "../../src/files/gguf.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { damaged } from "../testing.ts";

const golden = new URL("../golden/gguf/", import.meta.url);
const originals = ["mixed.gguf", "converted.gguf"].map((name) => Deno.readFileSync(new URL(name, golden)));
const headers = await Promise.all(["mixed.gguf", "converted.gguf"].map(async (name) => {
  using file = await GgufFile.open(new URL(name, golden).pathname);
  return Math.min(...[...file.tensors.values()].map(({ begin }) => begin));
}));
const NUMBERS = [0n, 1n, 2n, 31n, 32n, 2n ** 31n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];

/** A file with one to three changes in its header, metadata or table of tensors. The number determines the changes. */
export function mutant(number: number): Uint8Array<ArrayBuffer> {
  const random = new RandomGenerator(number), end = headers[number % 2];
  let bytes: Uint8Array<ArrayBuffer> = originals[number % 2].slice();
  for (let times = 1 + random.randint(3); times > 0 && bytes.length > 0; times--) {
    // Three eighths of the changes are in the first 300 bytes, and a quarter in the last 1400 of the header, the table of
    // tensors. Most other bytes are texts of tokens.
    const from = [0, 0, end - 1400, 0][random.randint(4)], room = [end, 300, 1400, 300][random.randint(4)];
    const at = Math.min(bytes.length - 1, from + random.randint(Math.min(room, end - from)));
    const view = new DataView(bytes.buffer);
    bytes = damaged(bytes, at, random, [
      () => {
        if (at + 8 <= bytes.length) view.setBigUint64(at, NUMBERS[random.randint(NUMBERS.length)], true);
        return bytes;
      },
      () => {
        if (at + 4 <= bytes.length) view.setUint32(at, random.randint(41), true); // a number that may be a type of metadata or tensors
        return bytes;
      },
    ]);
  }
  return bytes;
}

/** SHA-256 of the metadata and tensors, in the order of the file. */
export async function checksum(file: GgufFile): Promise<string> {
  const parts: string[] = [];
  for (const [key, { type, value }] of file.metadata) {
    const list = Array.isArray(value) ? value : undefined, float = type.startsWith("float");
    parts.push(key, list?.length === 0 ? "" : type, list ? `[${list.length}]` : "");
    for (const item of [value].flat()) parts.push(float ? floatText(item as number) : `${item}`);
  }
  for (const [name, { dtype, shape }] of file.tensors) {
    const values = (await file.readTensor(name)).map((value) => Number.isNaN(value) ? NaN : value);
    parts.push(name, dtype, `${shape}`, await sha256(new Uint8Array(values.buffer)));
  }
  return await sha256(new TextEncoder().encode(parts.join("\0")));
}

const floatText = (value: number) =>
  Number.isNaN(value) ? "nan" : new Uint8Array(Float64Array.of(value).buffer).toHex();
const sha256 = async (bytes: Uint8Array<ArrayBuffer>) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
