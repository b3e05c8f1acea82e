/** Parquet files written by pyarrow: every compression, several encodings, and damaged files. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { BoundedWorker } from "../../src/data/bounded_worker.ts";
import { readExamples } from "../../src/data/examples.ts";
import { parquetWorker, readParquet } from "../../src/data/parquet.ts";
import { DataFile } from "../../src/data/pieces.ts";
import { DataError } from "../../src/errors.ts";
import golden from "../golden/parquet/rows.json" with { type: "json" };
import { inFolder } from "../testing.ts";

const folder = new URL("../golden/parquet/", import.meta.url).pathname;
/** One worker for all files. If a test ends it, the next request starts it again. */
const worker = parquetWorker(256);
const read = (path: string, columns?: ReadonlySet<string>) => Array.fromAsync(readParquet(path, { worker, columns }));

for (const name of ["plain", "snappy", "gzip", "brotli", "zstd", "delta"]) {
  Deno.test(`Parquet, ${name}: the rows that pyarrow wrote are read`, async () => {
    const rows = await read(`${folder}${name}.parquet`);
    assertEquals(rows.map(({ columns }) => columns), golden.rows);
    assertEquals(rows[16].where, `${folder}${name}.parquet, row 17`);
  });
}

Deno.test("Parquet: only the requested columns are read, and a row lists the names of all columns", async () => {
  const rows = await read(`${folder}zstd.parquet`, new Set(["label", "none"]));
  assertEquals(rows.map(({ columns }) => columns), golden.rows.map(({ label }) => ({ label })));
  assertEquals(rows[0].names, ["text", "label", "score", "right", "name", "messages"]);
});

Deno.test("Parquet: examples are read, and their messages have no null fields", async () => {
  const examples = readExamples(`${folder}snappy.parquet`, { kinds: ["text"], columns: { text: "messages" } });
  await assertRejects(
    () => examples.next(),
    DataError,
    "row 1: messages is null; expected a text, or a list of messages",
  );
  const wrong = readExamples(`${folder}snappy.parquet`, { kinds: ["completion"] });
  assertStringIncludes(
    (await assertRejects(() => wrong.next(), DataError)).message,
    "row 1: no column prompt, no column completion; expected the columns (prompt, completion), and found text, label, score, right, name, messages",
  );
});

Deno.test("Parquet: files with an unsupported compression, truncated, empty, or in another format are rejected", () =>
  inFolder(async (temporary) => {
    const refused = async (path: string, message: string) =>
      assertStringIncludes((await assertRejects(() => read(path), DataError)).message, message);
    await refused(
      `${folder}lz4.parquet`,
      "lz4.parquet cannot be read: compressed with LZ4_RAW; supported are UNCOMPRESSED, SNAPPY, GZIP, BROTLI, ZSTD",
    );
    const path = `${temporary}/a.parquet`, bytes = await Deno.readFile(`${folder}plain.parquet`);
    for (const length of [0, 4, 11, 12, 100, bytes.length - 1]) {
      await Deno.writeFile(path, bytes.subarray(0, length));
      await refused(path, "a.parquet is not a Parquet file, or is cut off: it does not begin and end with PAR1");
    }
    const length = new DataView(bytes.buffer).getUint32(bytes.length - 8, true);
    // The middle of the file is missing, but its last part, which has the positions of all columns, is complete.
    await Deno.writeFile(path, Uint8Array.from([...bytes.subarray(0, 50), ...bytes.subarray(-length - 8)]));
    await refused(path, "a.parquet is damaged: it refers to bytes 4 to ");
    const text = new TextEncoder().encode("Paris"), latin = bytes.slice();
    for (let at = 0; at < latin.length - 5; at++) if (text.every((byte, i) => latin[at + i] === byte)) latin[at] = 0xe9;
    await Deno.writeFile(path, latin);
    await refused(path, "a.parquet is damaged: The encoded data is not valid");
  }));

Deno.test("several parts of a file can be requested at once", () =>
  inFolder(async (temporary) => {
    const bytes = Uint8Array.from({ length: 2 ** 20 }, (_, i) => i * 31 + (i >> 8)), path = `${temporary}/a.bin`;
    await Deno.writeFile(path, bytes);
    using file = await DataFile.open(path);
    const places = Array.from({ length: 50 }, (_, i) => (i * 7919 * 53) % 2 ** 19);
    const parts = await Promise.all(places.map((at) => file.slice(at, at + 2 ** 18)));
    parts.forEach((part, i) => assertEquals(part, bytes.slice(places[i], places[i] + 2 ** 18)));
    await assertRejects(() => file.slice(2 ** 20 - 1, 2 ** 20 + 1), DataError, "a.bin became shorter");
  }));

Deno.test("Parquet: a file that changes while it is read is an error", () =>
  inFolder(async (temporary) => {
    const path = `${temporary}/a.parquet`;
    await Deno.copyFile(`${folder}zstd.parquet`, path);
    const rows = readParquet(path, { worker });
    await rows.next();
    await Deno.utime(path, new Date(), new Date(0));
    await assertRejects(() => Array.fromAsync(rows), DataError, "a.parquet changed while it was read");
  }));

Deno.test("a bounded worker has limited memory, cannot reach files, and answers again after it was ended", async () => {
  using bounded = new BoundedWorker<string, unknown>("hyparquet", () => async (request, ask) => {
    if (request === "fill later") request = await ask("what") as string;
    const lists: unknown[] = [];
    while (request === "fill") lists.push(Array.from({ length: 1e5 }, (_, i) => ({ i })));
    while (request === "loop");
    if (request === "many steps") await ask("what");
    for (let i = 0; request === "many steps" && i < 1000; i++) await undefined;
    return [typeof globalThis.Deno, typeof globalThis.process, typeof globalThis.fetch];
  }, { megabytes: 64 });
  assertEquals(await bounded.ask("", { seconds: 60 }), ["undefined", "undefined", "undefined"]);
  await assertRejects(() => bounded.ask("fill", { seconds: 60 }), Error, "takes more than 64 MB of memory");
  // A ping arrives right after the answer, between two steps of the worker. The worker must not be taken for idle.
  const late = () => {
    for (const end = performance.now() + 600; performance.now() < end;);
    return Promise.resolve({ late: new ArrayBuffer(2 ** 27) }); // the next message arrives while the buffer is copied
  };
  const steps = await bounded.ask("many steps", { seconds: 60, answer: late });
  assertEquals(steps, ["undefined", "undefined", "undefined"]);
  const answer = () => Promise.resolve("fill");
  await assertRejects(
    () => bounded.ask("fill later", { seconds: 60, answer }),
    Error,
    "takes more than 64 MB of memory",
  );
  await assertRejects(() => bounded.ask("loop", { seconds: 0.5 }), Error, "takes more than 0.5 seconds");
  assertEquals(await bounded.ask("", { seconds: 60 }), ["undefined", "undefined", "undefined"]);
});
