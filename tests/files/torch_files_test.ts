/** Handmade archives, pickles and torch files, each with one error. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { readPickle } from "../../src/files/pickle.ts";
import type { PickleValue } from "../../src/files/pickle_values.ts";
import {
  PickleCall,
  type PickleInput,
  PickleName,
  PicklePersistent,
  writePickle,
} from "../../src/files/pickle_writer.ts";
import { TorchFile } from "../../src/files/torch_file.ts";
import { writeTorchFile } from "../../src/files/torch_writer.ts";
import { ZipFile } from "../../src/files/zip.ts";
import { zipParts } from "../../src/files/zip_writer.ts";
import { CheckpointError } from "../../src/errors.ts";
import { inFolder } from "../testing.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
async function archive(records: Record<string, Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const parts = zipParts(Object.entries(records).map(([name, data]) => ({ name, data: () => data })));
  return new Uint8Array(await new Blob(await Array.fromAsync(parts) as BlobPart[]).arrayBuffer());
}
/** Position of the nth occurrence of a header's four-byte signature. */
function find(bytes: Uint8Array, signature: number, nth = 0): number {
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 4 <= bytes.length; at++) {
    if (view.getUint32(at, true) === signature && nth-- === 0) return at;
  }
  throw new Error("no such header");
}
const LOCAL = 0x04034b50, DIRECTORY = 0x02014b50, END_64 = 0x06064b50;

Deno.test("zip: records begin at multiples of 64 bytes, and are read as a whole or in parts", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.zip`, data = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
    const bytes = await archive({ "a/é": data, "a/empty": new Uint8Array(), "a/b": utf8("b") });
    await Deno.writeFile(path, bytes);
    using zip = await ZipFile.open(path);
    assertEquals([...zip.entries].map(([name, { size }]) => [name, size]), [["a/é", 1000], ["a/empty", 0], ["a/b", 1]]);
    assertEquals(await zip.read("a/é"), data);
    assertEquals(await zip.read("a/empty"), new Uint8Array());
    const part = new Uint8Array(10);
    await zip.readInto("a/é", 500, part);
    assertEquals(part, data.slice(500, 510));
    for (let i = 0; i < 3; i++) {
      const at = find(bytes, LOCAL, i), view = new DataView(bytes.buffer);
      assertEquals((at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true)) % 64, 0);
    }
    await assertRejects(() => zip.read("c"), CheckpointError, "has no record c");
    await assertRejects(
      () => zip.read("a/é", { limit: 999 }),
      CheckpointError,
      "1000 bytes, more than the limit of 999",
    );
    await assertRejects(
      () => zip.readInto("a/é", 995, part),
      CheckpointError,
      "has 1000 bytes, but byte 1005 was requested",
    );
  }));

Deno.test("zip: reading a part of a record finds damage in its other parts", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.zip`, bytes = await archive({ a: new Uint8Array(3_000_000) });
    bytes[2_500_000] = 1;
    await Deno.writeFile(path, bytes);
    using zip = await ZipFile.open(path);
    for (let i = 0; i < 2; i++) {
      await assertRejects(
        () => zip.readInto("a", 100, new Uint8Array(4)),
        CheckpointError,
        "a do not match its checksum",
      );
    }
    using inOrder = await ZipFile.open(path); // if parts are read in order, the last part checks the CRC-32
    await inOrder.readInto("a", 0, new Uint8Array(4));
    const rest = new Uint8Array(2_999_996);
    await assertRejects(() => inOrder.readInto("a", 4, rest), CheckpointError, "checksum");
  }));

Deno.test("zip: invalid archives are rejected, and the message says what is wrong", async (t) => {
  type Change = (view: DataView, bytes: Uint8Array<ArrayBuffer>) => void | Uint8Array<ArrayBuffer>;
  const entry = (offset: number, value: number, nth = 0): Change => (view, bytes) =>
    view.setUint16(find(bytes, DIRECTORY, nth) + offset, value, true);
  const name = (text: string): Change => (_, bytes) => bytes.set(utf8(text), find(bytes, DIRECTORY) + 46);
  const wide = (field: number, value: bigint, nth = 0): Change => (view, bytes) =>
    view.setBigUint64(find(bytes, DIRECTORY, nth) + 46 + 4 + 4 + 8 * field, value, true); // fields 0 and 1 are the sizes, field 2 the position
  const cases: [string, Change, RegExp][] = [
    ["empty", () => new Uint8Array(), /is truncated or not a zip archive/],
    ["cut", (_, bytes) => bytes.slice(0, -1), /is truncated or not a zip archive/],
    ["bytes before", (_, bytes) => Uint8Array.from([0, ...bytes]), /end record is not where/],
    ["leads out", name("../b"), /"\.\.\/b" is not a valid name of a record/],
    ["leads out further in", name("a/.."), /not a valid name/],
    ["absolute", name("/abc"), /not a valid name/],
    ["a drive", name("C:ab"), /not a valid name/],
    ["backslash", name("a\\bc"), /not a valid name/],
    ["control character", name("a\nbc"), /not a valid name/],
    ["twice", name("defg"), /defg occurs twice/],
    ["encrypted", entry(8, 0x801), /abcd is encrypted/],
    ["another compression", entry(10, 12), /abcd has compression method 12/],
    ["two sizes", wide(0, 9n), /abcd is not compressed, but has two sizes, 8 and 9/],
    ["past the end", wide(1, 1n << 20n), /abcd is not before the directory/],
    ["2^63 bytes", wide(1, 1n << 63n), /abcd is not before/],
    ["at 2^63", wide(2, 1n << 63n), /abcd is not before/],
    ["overlap", wide(2, 0n, 1), /abcd and defg overlap/],
    ["inflates beyond what deflate can", (view, bytes) => {
      entry(10, 8)(view, bytes);
      wide(0, 1n << 40n)(view, bytes);
    }, /abcd cannot inflate from 8 to 1099511627776 bytes/],
    [
      "fewer records than there are",
      (view, bytes) => view.setUint32(find(bytes, END_64) + 32, 1, true),
      /2 records, expected 1/,
    ],
    [
      "directory elsewhere",
      (view, bytes) => view.setUint32(find(bytes, END_64) + 48, 1, true),
      /directory is not where/,
    ],
    [
      "one of several parts",
      (view, bytes) => view.setUint32(find(bytes, END_64) + 16, 1, true),
      /one of several parts/,
    ],
    ["no directory", (view, bytes) => view.setUint32(find(bytes, DIRECTORY), 0, true), /its directory is not valid/],
    ["name longer than the directory", entry(28, 0xffff), /its directory is truncated/],
    ["no header", (view) => view.setUint32(0, 0, true), /the header of abcd differs from the directory/],
    ["another name in the header", (_, bytes) => bytes.set(utf8("x"), 30), /the header of abcd differs/],
    [
      "a longer name in the header",
      (view) => view.setUint16(28, 200, true),
      /abcd overlaps the record or directory after it/,
    ],
    ["another checksum", (view) => view.setUint32(14, 1, true), /the header of abcd differs/],
    ["contents", (_, bytes) => void (bytes[64]++), /the contents of abcd do not match its checksum/],
    ["deflated nonsense", (view, bytes) => {
      entry(10, 8)(view, bytes);
      view.setUint16(8, 8, true);
      bytes[64] = 0xff;
    }, /abcd cannot be inflated/],
  ];
  for (const [what, change, message] of cases) {
    await t.step(what, () =>
      inFolder(async (folder) => {
        const path = `${folder}/a.zip`, bytes = await archive({ abcd: utf8("8 bytes!"), defg: utf8("more") });
        await Deno.writeFile(path, change(new DataView(bytes.buffer), bytes) ?? bytes);
        const read = async () => {
          using zip = await ZipFile.open(path);
          for (const name of zip.entries.keys()) await zip.read(name);
        };
        const error = await assertRejects(read, CheckpointError);
        assertMatch((error as Error).message, message);
        assert((error as Error).message.startsWith(path));
      }));
  }
});

Deno.test("zip: a record that inflates to more or fewer bytes than the directory says is rejected", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.zip`;
    const stream = new Blob([new Uint8Array(1_000_000)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const packed = new Uint8Array(await new Response(stream).arrayBuffer());
    for (
      const [size, message] of [[1000, "to more than 1000 bytes"], [
        1_000_001,
        "to 1000000 bytes, expected 1000001",
      ]] as const
    ) {
      const bytes = await archive({ a: packed }), view = new DataView(bytes.buffer), at = find(bytes, DIRECTORY);
      for (const method of [8, at + 10]) view.setUint16(method, 8, true);
      view.setBigUint64(at + 46 + 1 + 4, BigInt(size), true);
      await Deno.writeFile(path, bytes);
      using zip = await ZipFile.open(path);
      await assertRejects(() => zip.read("a"), CheckpointError, `a inflates ${message}`);
    }
  }));

/** A pickle of protocol 2 with the given opcodes and arguments, as the characters in pickletools or as bytes. */
const program = (...parts: (string | number[])[]): Uint8Array =>
  Uint8Array.from([0x80, 2, ...parts.flatMap((part) => typeof part === "string" ? [...utf8(part)] : part), 0x2e]);
const reader = (bytes: Uint8Array): PickleValue => readPickle(bytes, { where: "a.pkl" });

Deno.test("pickle: an invalid program, or one that expands a few bytes into a huge value, is rejected", () => {
  const u64 = (value: bigint) => [...new Uint8Array(BigUint64Array.of(value).buffer)];
  const laughs = [
    "]q",
    [0],
    "0",
    ...Array.from({ length: 40 }, (_, i) => ["](h", [i], "h", [i], "eq", [i + 1], "0"]).flat(),
  ];
  const cases: [string, Uint8Array, string][] = [
    ["no pickle", utf8("hello"), "it is not a pickle of protocol 2 or later"],
    ["protocol 0", utf8("I1\n."), "it is not a pickle of protocol 2"],
    ["protocol 9", Uint8Array.of(0x80, 9, 0x4e, 0x2e), "it is a pickle of protocol 9"],
    ["cut", program().slice(0, -1), "is truncated"],
    ["nothing", program(), "takes a value that is not there"],
    ["left over", program("NN"), "ends with values left over"],
    ["an open mark", program("(N"), "ends with values left over"],
    ["more behind", Uint8Array.of(...program("N"), 0x2e), "1 bytes follow its end"],
    ["no mark", program("Nt"), "a mark that is not there"],
    ["a tuple of too few", program("N", [0x87]), "takes a value that is not there"],
    ["append to None", program("NNa"), "appends to a value that is not a list"],
    ["append to a tuple", program(")Na"), "appends to a value that is not a list"],
    ["item of a list", program("]NNs"), "sets an item of a value that is not a dict"],
    ["a key alone", program("}(Nu"), "sets a key without a value"],
    ["a list as a key", program("}]Ns"), "a key of a dict is neither text nor a number"],
    ["a value not saved", program("h", [3]), "recalls value 3"],
    ["attributes of a list", program("]}b"), "sets attributes of a value that is not a dict"],
    ["a call of None", program("N)R"), "calls a value that is not a function"],
    ["a call without a tuple", program("ccollections\nOrderedDict\n]R"), "is called without a tuple"],
    ["a call with arguments", program("ccollections\nOrderedDict\n(NtR"), "OrderedDict is called with arguments"],
    ["a persistent id", program("NQ"), "refers to a value outside"],
    ["a name by a number", program("K", [1], "K", [2], [0x93]), "a name in it is not a text"],
    ["an instance", program("(ios\nsystem\n"), "opcode 0x69 at 3"],
    ["an extension", program([0x82, 1]), "opcode 0x82 at 2"],
    ["not UTF-8", program("X", [1, 0, 0, 0, 0xff]), "a text is not UTF-8"],
    ["a text of 2^63 bytes", program([0x8d], u64(2n ** 63n)), "is truncated"],
    ["bytes of 2^64 - 1", program([0x8e], u64(2n ** 64n - 1n)), "is truncated"],
    ["an int of 2^31 bytes", program([0x8b, 0, 0, 0, 0x80]), "an int has 2147483648 bytes"],
    ["a list in itself", program("]q", [0], "h", [0], "a"), "nested more than 64 deep"],
    ["lists in lists", program("]".repeat(100), "a".repeat(99)), "nested more than 64 deep"],
    ["lists that have another list twice", program(...laughs, "h", [40]), "holds more than 1000000 values"],
    ["steps without end", program("N0".repeat(1_000_001), "N"), "more than 2000000 steps"],
  ];
  for (const [what, bytes, message] of cases) {
    const error = assertThrows(() => reader(bytes), CheckpointError) as Error;
    assert(
      error.message.startsWith("a.pkl is damaged: ") && error.message.includes(message),
      `${what}: ${error.message}`,
    );
  }
  assertEquals(reader(program(...laughs.slice(0, 3 + 7 * 10), "h", [10])) instanceof Array, true);
});

Deno.test("pickle: a value that was written is read unchanged", () => {
  const value: PickleInput = {
    ...{ none: null, yes: true, no: false, int: 7, negative: -300, wide: 2 ** 40, large: -(2n ** 100n), float: 0.1 },
    ...{
      zero: -0,
      text: "é\ufeff🙂\0",
      long: "x".repeat(5000),
      list: [1, [2]],
      tuple: Object.freeze(["a", 2]),
      dict: {},
    },
  };
  const read = reader(writePickle(value)) as Map<string, unknown>;
  assertEquals(Object.fromEntries(read), { ...value, dict: new Map() });
  assert(Object.isFrozen(read.get("tuple")) && !Object.isFrozen(read.get("list")) && Object.is(read.get("zero"), -0));
  assertThrows(() => writePickle("\ud800"), TypeError, "half a character");
  assertThrows(() => writePickle(undefined as unknown as null), TypeError, "undefined cannot be pickled");
});

const tuple = (...items: number[]) => Object.freeze(items);
/** A tensor's description as written by torch.save, with `changes`. */
function tensor(changes: Record<string, PickleInput> = {}): PickleInput {
  const { type = "FloatStorage", key = "0", size = 4, offset = 0, shape = tuple(2, 2), stride = tuple(2, 1) } = changes;
  const id = Object.freeze(["storage", new PickleName("torch", type as string), key, "cpu", size]);
  const args = [new PicklePersistent(id), offset, shape, stride];
  return new PickleCall(new PickleName("torch._utils", "_rebuild_tensor_v2"), args);
}
async function torchFile(folder: string, value: PickleInput, others: Record<string, Uint8Array> = {}): Promise<string> {
  const storage = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer), path = `${folder}/a.pt`;
  await Deno.writeFile(path, await archive({ "a/data.pkl": writePickle(value), "a/data/0": storage, ...others }));
  return path;
}

Deno.test("torch files: tensors that reach beyond their storage are rejected", () =>
  inFolder(async (folder) => {
    const good = await torchFile(folder, { x: tensor(), t: tensor({ stride: tuple(1, 2) }) });
    using file = await TorchFile.open(good);
    assertEquals(await file.readTensor("x"), Float32Array.of(1, 2, 3, 4));
    assertEquals(await file.readTensor("t"), Float32Array.of(1, 3, 2, 4));
    const wide = new Uint8Array(BigInt64Array.of(1n, 2n ** 31n).buffer);
    const cases: [PickleInput, string, Record<string, Uint8Array>?][] = [
      [{ x: tensor({ offset: 1 }) }, "[2,2] with strides [2,1] from element 1 on, is not within its storage of 4"],
      [{ x: tensor({ stride: tuple(3, 1) }) }, "is not within its storage of 4"],
      [{ x: tensor({ stride: tuple(2) }) }, "is not within its storage of 4"],
      [{ x: tensor({ shape: tuple(2 ** 40, 2 ** 40), stride: tuple(0, 0) }) }, "is not within its storage of 4"],
      [{ x: tensor({ stride: tuple(-2, 1) }) }, "the description of a tensor is not valid"],
      [{ x: tensor({ offset: 0.5 }) }, "the description of a tensor is not valid"],
      [{ x: tensor({ shape: tuple(...Array(17).fill(1)) }) }, "the description of a tensor is not valid"],
      [{ x: tensor({ size: 5 }) }, "a/data/0 has 16 bytes, expected 20"],
      [{ x: tensor({ key: "1" }) }, "it refers to a/data/1, which is missing in the file"],
      [{ x: tensor({ key: "../data.pkl" }) }, "it refers to a/data/../data.pkl, which is missing in the file"],
      [{ x: tensor({ type: "QInt8Storage" }) }, "uses torch.QInt8Storage"],
      [{ x: tensor(), y: tensor({ type: "IntStorage" }) }, "a/data/0 is both F32 and I32"],
      [new PickleCall(new PickleName("torch", "FloatStorage"), [4]), "it calls a value that is not a function"],
      [
        new PickleCall(new PickleName("torch._utils", "_rebuild_parameter"), [4]),
        "the description of a parameter is not valid",
      ],
      [{}, "is big-endian", { "a/byteorder": utf8("big") }],
      [{}, "is not a file of torch.save: it has no record data.pkl", { "b/data.pkl": utf8("") }],
    ];
    for (const [value, message, others] of cases) {
      const path = await torchFile(folder, value, others);
      await assertRejects(() => TorchFile.open(path), CheckpointError, message);
    }
    using late = await TorchFile.open(
      await torchFile(folder, {
        huge: tensor({ shape: tuple(2 ** 20, 2 ** 20), stride: tuple(0, 0) }),
        wide: tensor({ type: "LongStorage", key: "1", size: 2, shape: tuple(2), stride: tuple(1) }),
      }, { "a/data/1": wide }),
    );
    await assertRejects(
      () => late.readTensor("huge"),
      CheckpointError,
      "expanded from 4 elements: too many to read",
    );
    await assertRejects(
      () => late.readTensor("wide"),
      CheckpointError,
      "wide is I64, and one of its elements does not fit",
    );
    await assertRejects(() => late.readTensor("other"), CheckpointError, "has no tensor other");
    await assertRejects(
      () => late.readFloats("wide", 0, new Float32Array(1)),
      CheckpointError,
      "expected floating-point",
    );
    await assertRejects(() => file.readFloats("x", 3, new Float32Array(2)), CheckpointError, "no elements 3 to 5");
  }));

Deno.test("torch files: after a failed save, the old file is unchanged, and no other file remains", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.pt`, x = { dtype: "F32", shape: [2], data: () => Float32Array.of(1, 2) } as const;
    await writeTorchFile(path, { x });
    const before = await Deno.readFile(path), full = () => Promise.reject(new Error("No space left (os error 28)"));
    const short = { ...x, shape: [3] },
      broken = { ...x, data: () => Promise.reject(new CheckpointError("a is damaged")) };
    await assertRejects(
      () => writeTorchFile(path, { x }, { open: () => full() }),
      CheckpointError,
      `Cannot write ${path}: No space left`,
    );
    await assertRejects(
      () => writeTorchFile(path, { x, broken }),
      CheckpointError,
      `Cannot write ${path}: a is damaged`,
    );
    await assertRejects(() => writeTorchFile(path, { short }), TypeError, "a tensor [3] has 8 bytes, expected 12");
    await assertRejects(
      () => writeTorchFile(path, { x: { ...x, dtype: "F8_E4M3" } }),
      TypeError,
      "no storage for F8_E4M3",
    );
    assertEquals(await Deno.readFile(path), before);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));
