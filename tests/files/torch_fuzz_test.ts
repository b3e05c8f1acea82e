/**
 * Damaged files of torch.save, ckpt.pt and meta.pkl: reading them neither crashes nor hangs, and never gives wrong
 * values.
 *
 * A zip archive has checksums for the structure, every storage and the byte order, and a changed size or position
 * contradicts another field. So a value that is loaded from a damaged archive must equal the original. A pickle alone
 * has no checksum. A damaged meta.pkl may be another valid vocabulary (Python shares the characters of itos and stoi,
 * so both change together), and a structure that was changed before it was archived may be another valid structure.
 */
import { assert, assertEquals } from "@std/assert";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { readMetaPkl } from "../../src/tokenizer/meta_pkl.ts";
import { NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { TorchFile } from "../../src/files/torch_file.ts";
import { TorchTensor } from "../../src/files/torch_structure.ts";
import { ZipFile } from "../../src/files/zip.ts";
import { zipParts } from "../../src/files/zip_writer.ts";
import { CheckpointError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { processorTime } from "../testing.ts";

/** The number of mutants of each kind; `deno test FILE -- 20000` makes 20,000. */
const MUTANTS = Number(Deno.args[0] ?? 300);
/** The maximum processor time for reading a file, in milliseconds. */
const PATIENCE = 5000;
const saved = new URL("../golden/torch_files", import.meta.url).pathname;

const LENGTHS = [0n, 1n, 63n, 255n, 0xffffn, 0x7fffffffn, 0xffffffffn, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

/**
 * A copy of a file with one to three changes: bits, bytes or lengths are changed, or a part is removed, repeated,
 * inserted, or moved within the file.
 */
function mutate(original: Uint8Array, random: RandomGenerator): Uint8Array<ArrayBuffer> {
  let bytes = original.slice();
  for (let times = 1 + random.randint(3); times > 0 && bytes.length > 0; times--) {
    // A checkpoint consists mostly of weights. So two thirds of the changes are made at its beginning or end, where sizes
    // and names are.
    const near = [0, bytes.length, Math.min(bytes.length, 8000)][random.randint(3)];
    const at = near === bytes.length
      ? Math.max(0, bytes.length - 1 - random.randint(6000))
      : random.randint(near || bytes.length);
    const length = 1 + random.randint(40),
      from = random.randint(bytes.length),
      after = Math.min(bytes.length, at + length);
    const splice = (by: Uint8Array, end: number) => {
      const spliced = new Uint8Array(at + by.length + bytes.length - end);
      spliced.set(bytes.subarray(0, at));
      spliced.set(by, at);
      spliced.set(bytes.subarray(end), at + by.length);
      bytes = spliced;
    };
    const kind = random.randint(9);
    if (kind <= 1) bytes[at] ^= 1 << random.randint(8);
    else if (kind === 2) bytes[at] = random.randint(256);
    else if (kind === 3) bytes = bytes.slice(0, random.randint(bytes.length + 1));
    else if (kind === 4) splice(new Uint8Array(), after);
    else if (kind === 5) splice(bytes.slice(at, after), at);
    else if (kind === 6) splice(bytes.slice(from, from + length), after);
    else if (kind === 7) splice(Uint8Array.from({ length }, () => random.randint(256)), at);
    else {
      const width = [2, 4, 8][random.randint(3)], value = LENGTHS[random.randint(LENGTHS.length)];
      const eight = new Uint8Array(BigUint64Array.of(value).buffer);
      splice(eight.slice(0, width), Math.min(bytes.length, at + width));
    }
  }
  return bytes;
}

/** The contents of a file, with the bits of every number. */
async function contents(path: string): Promise<string> {
  using file = await TorchFile.open(path);
  const tensors: unknown[] = [];
  for (const [name, { dtype, shape }] of file.tensors) {
    const { buffer } = await file.readTensor(name);
    tensors.push([name, dtype, shape, new Uint8Array(buffer).toHex()]);
  }
  const text = JSON.stringify(file.value, (_, value) => {
    if (value instanceof TorchTensor) return "a tensor";
    if (value instanceof Map) return { dict: [...value] };
    return typeof value === "bigint" ? `${value}n` : value;
  });
  return text + JSON.stringify(tensors);
}

async function checkpoint(path: string): Promise<string> {
  using file = await NanoGPTFile.open(path);
  const { config, iter, bestValLoss, flags } = file, optimizer = (await file.optimizer())!, tensors: unknown[] = [];
  for (const [name, { shape, data }] of [...file.weights(), ...optimizer.tensors]) {
    const { buffer, byteOffset, byteLength } = await data();
    tensors.push([name, shape, new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength).toHex()]);
  }
  return JSON.stringify([config, iter, bestValLoss, flags, optimizer.steps, tensors]);
}

async function vocabulary(path: string): Promise<string> {
  const tokenizer = await readMetaPkl(path);
  if (!(tokenizer instanceof CharacterTokenizer)) return tokenizer.decode(Array.from({ length: 9 }, (_, id) => id));
  const { characters } = tokenizer;
  assertEquals(new Set(characters).size, characters.length);
  assert(characters.every((character) => [...character].length === 1));
  return characters.join("");
}

/** An archive whose structure is replaced by `structure`, with matching checksums. */
async function rearchived(
  path: string,
  structure: (bytes: Uint8Array) => Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  using zip = await ZipFile.open(path);
  const records = [];
  for (const name of zip.entries.keys()) {
    const bytes = await zip.read(name), kept = name.endsWith("/data.pkl") ? structure(bytes) : bytes;
    records.push({ name, data: () => kept });
  }
  return new Uint8Array(await new Blob(await Array.fromAsync(zipParts(records)) as BlobPart[]).arrayBuffer());
}

interface Kind {
  readonly name: string;
  readonly file: string;
  readonly read: (path: string) => Promise<string>;
  /** Whether a loaded value must equal the original. */
  readonly covered: boolean;
  readonly mutant?: (path: string, random: RandomGenerator) => Promise<Uint8Array<ArrayBuffer>>;
}
const kinds: Kind[] = [
  { name: "torch.save", file: "values.pt", read: contents, covered: true },
  { name: "torch.save, deflated", file: "deflated.pt", read: contents, covered: true },
  { name: "ckpt.pt", file: "ckpt.pt", read: checkpoint, covered: true },
  { name: "meta.pkl", file: "meta.pkl", read: vocabulary, covered: false },
  {
    name: "structures changed before they were archived",
    file: "values.pt",
    read: contents,
    covered: false,
    mutant: (path, random) => rearchived(path, (bytes) => mutate(bytes, random)),
  },
];

for (const [seed, { name, file, read, covered, mutant }] of kinds.entries()) {
  Deno.test(`${MUTANTS} damaged files: ${name}`, async () => {
    const random = new RandomGenerator(seed), original = `${saved}/${file}`, bytes = await Deno.readFile(original);
    const expected = await read(original), path = await Deno.makeTempFile();
    let refused = 0, same = 0, other = 0, slowest = 0;
    try {
      for (let i = 0; i < MUTANTS; i++) {
        await Deno.writeFile(path, await mutant?.(original, random) ?? mutate(bytes, random));
        const start = processorTime();
        try {
          if (await read(path) === expected) same++;
          else other++;
        } catch (error) {
          if (!(error instanceof CheckpointError)) throw new Error(`mutant ${i}`, { cause: error });
          assert(error.message.includes(path), error.message);
          assert(!/[^\x20-\uffff]/.test(error.message) && error.message.length < 1000, error.message);
          refused++;
        }
        slowest = Math.max(slowest, processorTime() - start);
        if (covered) assertEquals(other, 0, `mutant ${i} loads as something else`);
      }
    } finally {
      await Deno.remove(path);
    }
    assert(refused > MUTANTS / 4 && slowest < PATIENCE, `${refused} refused, the slowest took ${slowest} ms`);
    if (Deno.args.length > 0) {
      console.log(`${name}: ${refused} refused, ${same} unharmed, ${other} others, ${slowest} ms`);
    }
  });
}
