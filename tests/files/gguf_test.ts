/**
 * Handmade GGUF headers: versions, long headers, and all kinds of damage, which must be found before memory is
 * allocated.
 */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../src/errors.ts";
import { GgufFile, writeGguf } from "../../src/files/gguf.ts";
import { Lock } from "../../src/files/locks.ts";
import { inFolder } from "../testing.ts";

const u32 = (value: number) => [...new Uint8Array(Uint32Array.of(value).buffer)];
const u64 = (value: number | bigint) => [...new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)];
const text = (value: string) => [...u64(value.length), ...new TextEncoder().encode(value)];
const GGUF = [...new TextEncoder().encode("GGUF")];
const F32 = 0, UINT32 = 4, BOOL = 7, STRING = 8, ARRAY = 9;

interface Parts {
  readonly version?: number[];
  readonly tensors?: number[][];
  readonly pairs?: number[][];
  readonly counts?: readonly [tensors: number | bigint, pairs: number | bigint];
  readonly data?: number;
}
/** A file with the given header, which is padded to 32 bytes and followed by `data` bytes of zeros. */
function bytesOf(
  { version = u32(3), tensors = [], pairs = [], counts = [tensors.length, pairs.length], data = 64 }: Parts,
) {
  const head = [...GGUF, ...version, ...u64(counts[0]), ...u64(counts[1]), ...pairs.flat(), ...tensors.flat()];
  return Uint8Array.from([...head, ...Array(-head.length & 31).fill(0), ...Array(data).fill(0)]);
}
const tensor = (
  name: string,
  dims: (number | bigint)[],
  { type = F32, offset = 0 as number | bigint } = {},
) => [...text(name), ...u32(dims.length), ...dims.flatMap(u64), ...u32(type), ...u64(offset)];
const pair = (key: string, type: number, value: number[]) => [...text(key), ...u32(type), ...value];

const HUGE = 2n ** 64n - 1n;
const damaged: [what: string, parts: Parts | Uint8Array<ArrayBuffer>, message: string][] = [
  ["an empty file", new Uint8Array(), 'is not a GGUF file: its first four bytes are not "GGUF"'],
  ["another format", new TextEncoder().encode("PK\x03\x04 and more"), "is not a GGUF file"],
  ["version 1", { version: u32(1) }, "is a GGUF file (version 1); supported are versions 2 and 3"],
  ["a big-endian file", { version: [0, 0, 0, 3] }, "is a GGUF file (big-endian)"],
  ["a huge number of tensors", { counts: [HUGE, 0] }, "18446744073709552000 tensors do not fit into the"],
  ["a huge number of pairs", { counts: [0, 2n ** 53n] }, "9007199254740992 pairs do not fit"],
  ["a huge length of a key", { pairs: [[...u64(2n ** 62n), 1]], counts: [0, 1] }, "bytes of key 1 do not fit"],
  ["a huge length of a string", { pairs: [pair("a", STRING, u64(HUGE))] }, "bytes of a do not fit"],
  [
    "a huge length of an array",
    { pairs: [pair("a", ARRAY, [...u32(STRING), ...u64(2n ** 40n)])] },
    "elements of a do not fit",
  ],
  ["an array of arrays", { pairs: [pair("a", ARRAY, [...u32(ARRAY), ...u64(1)])] }, "a is an array of arrays"],
  ["an unknown type of metadata", { pairs: [pair("a", 13, [0])] }, "a has type 13, expected 0 to 12"],
  ["a boolean other than 0 and 1", { pairs: [pair("a", BOOL, [2])] }, "a is the boolean 2, expected 0 or 1"],
  ["a string that is not UTF-8", { pairs: [pair("a", STRING, [...u64(1), 0xff])] }, "a is not UTF-8 text"],
  ["a key that occurs twice", { pairs: [pair("a", BOOL, [0]), pair("a", BOOL, [1])] }, "a occurs twice"],
  [
    "an alignment of 0",
    { pairs: [pair("general.alignment", UINT32, u32(0))] },
    "general.alignment is 0 (uint32), expected a power",
  ],
  [
    "an alignment that is not a power of two",
    { pairs: [pair("general.alignment", UINT32, u32(48))] },
    "general.alignment is 48 (uint32)",
  ],
  [
    "an alignment of the wrong type",
    { pairs: [pair("general.alignment", 5, u32(32))] },
    "general.alignment is 32 (int32)",
  ],
  [
    "a tensor with five dimensions",
    { tensors: [tensor("t", [1, 1, 1, 1, 1])] },
    "t has 5 dimensions, expected at most 4",
  ],
  [
    "a tensor that occurs twice",
    { tensors: [tensor("t", [8]), tensor("t", [8], { offset: 32 })] },
    "the tensor t occurs twice",
  ],
  ["a tensor without elements", { tensors: [tensor("t", [4, 0])] }, "t is F32 [0,4], expected rows of a multiple"],
  [
    "a huge number of elements",
    { tensors: [tensor("t", [2n ** 33n, 2n ** 31n])] },
    "but t has 18446744073709552000 elements",
  ],
  [
    "a tensor with a part of a block",
    { tensors: [tensor("t", [33, 2], { type: 8 })] },
    "t is Q8_0 [2,33], expected rows of a multiple of 32",
  ],
  [
    "an unsupported type with a name",
    { tensors: [tensor("t", [32], { type: 12 })] },
    "t is Q4_K; supported are F32, F16, Q8_0, BF16",
  ],
  [
    "an unsupported type without a name",
    { tensors: [tensor("t", [32], { type: 77 })] },
    "t is of type 77; supported are",
  ],
  ["a wrong offset", { tensors: [tensor("t", [8], { offset: 4 })] }, "t has the offset 4, expected 0"],
  ["an overlap of two tensors", { tensors: [tensor("t", [8]), tensor("s", [8])] }, "s has the offset 0, expected 32"],
  ["a huge offset", { tensors: [tensor("t", [8], { offset: 2n ** 64n - 32n })] }, "expected 0"],
  ["too little data", { tensors: [tensor("t", [17])] }, "but t ends at"],
  [
    "a truncated header",
    bytesOf({ tensors: [tensor("t", [8])] }).slice(0, 50),
    "is damaged or truncated: it has 50 bytes",
  ],
];
for (const [what, parts, message] of damaged) {
  Deno.test(`GGUF: ${what} is rejected`, () =>
    inFolder(async (folder) => {
      const path = `${folder}/model.gguf`;
      await Deno.writeFile(path, parts instanceof Uint8Array ? parts : bytesOf(parts));
      const error = await assertRejects(() => GgufFile.open(path), CheckpointError);
      assertStringIncludes(error.message, message);
      assertEquals(error.message.startsWith(path), true, error.message);
    }));
}

Deno.test("GGUF: version 2, tensors without dimensions, and __proto__ as a key are read", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`, pairs = [pair("__proto__", UINT32, u32(7))];
    await Deno.writeFile(path, bytesOf({ version: u32(2), pairs, tensors: [tensor("t", [])] }));
    using file = await GgufFile.open(path);
    assertEquals([...file.metadata], [["__proto__", { type: "uint32", value: 7 }]]);
    assertEquals(file.tensors.get("t")!.shape, []);
    assertEquals([...await file.readTensor("t")], [0]);
    await assertRejects(() => file.readTensor("none"), CheckpointError, "has no tensor none");
    await assertRejects(() => file.readFloats("t", 1, new Float32Array(1)), CheckpointError, "no elements 1 to 2");
    await assertRejects(() => file.readBytes("t", 0, new Uint8Array(5)), CheckpointError, "ends within t");
  }));

Deno.test("GGUF: a header that is longer than the part that is read first can be read", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`, tokens = Array.from({ length: 300_000 }, (_, i) => `token ${i}é`);
    const metadata = [["tokens", { type: "string", value: tokens }]] as const;
    const data = () => Float32Array.of(1, 2);
    await writeGguf(path, { metadata, tensors: [["t", { dtype: "F32", shape: [2], data }]] });
    using file = await GgufFile.open(path);
    assertEquals(file.metadata.get("tokens")!.value, tokens);
    assertEquals([...await file.readTensor("t")], [1, 2]);
  }));

Deno.test("GGUF: if the disk is full, another process writes the file or a tensor has the wrong size, the old file stays", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`, data = () => Float32Array.of(1, 2);
    await Deno.writeTextFile(path, "before");
    const open = () =>
      Promise.resolve({
        write: () => Promise.reject(new Error("No space left on device")),
        sync: async () => {},
        close() {},
      });
    const tensors = [["t", { dtype: "F32", shape: [2], data }]] as const;
    await assertRejects(
      () => writeGguf(path, { metadata: [], tensors }, { open }),
      CheckpointError,
      `Cannot write ${path}: No space left on device`,
    );
    {
      using _ = await Lock.take(path, { beside: true });
      await assertRejects(() => writeGguf(path, { metadata: [], tensors }), CheckpointError, "is in use by process");
    }
    const short = [["t", { dtype: "F32", shape: [3], data }]] as const;
    await assertRejects(() => writeGguf(path, { metadata: [], tensors: short }), TypeError, "t: 8 bytes, expected 12");
    assertEquals(await Deno.readTextFile(path), "before");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));
