/**
 * Damaged files with rows: the reader neither crashes nor hangs, and returns only rows that are in the file.
 *
 * For JSON lines, JSON arrays and comma-separated values, the rows are compared with the rows of a simple reference
 * reader, which reads the whole text. A row that only one of the two readers accepts is an error. The Parquet files have
 * no checksums, so a damaged page may be a valid page with other values: the test checks only that the rows have the
 * file's columns.
 */
import { assert, assertEquals } from "@std/assert";
import { parquetWorker, readParquet } from "../../src/data/parquet.ts";
import { readRows } from "../../src/data/rows.ts";
import { DataError } from "../../src/errors.ts";
import { isObject } from "../../src/files/files.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { damaged, inFolder } from "../testing.ts";

/** The number of mutants of each file; `deno test FILE -- 20000` makes 20,000. */
const MUTANTS = Number(Deno.args[0] ?? 250);
const golden = new URL("../golden/parquet/", import.meta.url).pathname;

type Rows = Record<string, unknown>[];

/** A damaged copy of a file. Two thirds of the mutants have several changes. */
function mutant(original: Uint8Array<ArrayBuffer>, random: RandomGenerator, place: (length: number) => number) {
  let bytes = original.slice();
  for (
    let times = 1 + random.randint(2) * random.randint(3);
    times >= 0 && bytes.length > 0;
    times -= 1 + random.randint(2)
  ) {
    bytes = damaged(bytes, place(bytes.length), random, []);
  }
  return bytes;
}

/**
 * The rows that a reader returns for each mutant; undefined if the reader throws a DataError. Any other error fails the
 * test.
 */
async function outcomes(
  name: string,
  original: Uint8Array<ArrayBuffer>,
  read: (path: string) => AsyncIterable<{ readonly columns: Readonly<Record<string, unknown>> }>,
  judge: (bytes: Uint8Array<ArrayBuffer>, rows: Rows | undefined, message: string) => void,
  place?: (random: RandomGenerator, length: number) => number,
) {
  const random = new RandomGenerator(20261129);
  let rightly = 0;
  await inFolder(async (folder) => {
    const path = `${folder}/${name}`;
    for (let i = 0; i < MUTANTS; i++) {
      const bytes = mutant(original, random, (length) => place?.(random, length) ?? random.randint(length));
      await Deno.writeFile(path, bytes);
      let rows: Rows | undefined, message = "";
      try {
        rows = (await Array.fromAsync(read(path))).map(({ columns }) => ({ ...columns }));
        rightly++;
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        ({ message } = error);
      }
      judge(bytes, rows, `mutant ${i}: ${message}`);
    }
  });
  assert(rightly > 0 && rightly < MUTANTS, `${rightly} of ${MUTANTS} mutants were read`);
}

/** Decodes bytes without a byte-order mark; undefined if they are not UTF-8. */
function textOf(bytes: Uint8Array<ArrayBuffer>): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A reference reader: the rows of a whole text, or undefined if it is not valid. */
const judgedBy =
  (rowsOf: (text: string) => Rows | undefined) =>
  (bytes: Uint8Array<ArrayBuffer>, rows: Rows | undefined, what: string) => {
    const text = textOf(bytes), expected = text === undefined ? undefined : rowsOf(text);
    assertEquals(rows, expected?.length ? expected : undefined, what);
  };

/** The objects in a list of JSON texts; undefined if a text is not valid or not an object. */
function parsed(texts: readonly string[]): Rows | undefined {
  try {
    const rows = texts.map((text) => JSON.parse(text));
    return rows.every(isObject) ? rows : undefined;
  } catch {
    return undefined;
  }
}

const rows = Array.from(
  { length: 12 },
  (_, i) => ({ text: `é"${i}",\r\n[{]}`.repeat(1 + i % 3), label: i, "a,b": null }),
);
const encode = (text: string) => new TextEncoder().encode(text);

Deno.test("the rows of damaged JSON lines equal the reference reader's", () => {
  const judge = judgedBy((text) => parsed(text.split("\n").filter((line) => line.trim())));
  return outcomes("a.jsonl", encode(rows.map((row) => JSON.stringify(row)).join("\n")), readRows, judge);
});

Deno.test("the rows of a damaged JSON array equal the reference reader's", () => {
  const judge = judgedBy((text) => {
    const [first] = text.trim();
    if (first !== "[") return parsed(text.split("\n").filter((line) => line.trim()));
    const all = parsed([`{"all":${text}}`])?.[0].all as unknown[] | undefined;
    return all?.every(isObject) ? all as Rows : undefined;
  });
  return outcomes("a.json", encode(JSON.stringify(rows, null, 1)), readRows, judge);
});

Deno.test("the rows of damaged comma-separated values equal the reference reader's", () => {
  const cell = (text: string) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = [["text", "label"], ...rows.map(({ text, label }) => [text, `${label}`])].map((cells) =>
    cells.map(cell).join(",")
  );
  return outcomes("a.csv", encode(lines.join("\r\n")), readRows, judgedBy(csvRows));
});

/** Parses CSV with one regular expression: a cell, quoted or not, and the separator after it. */
function csvRows(text: string): Rows | undefined {
  const records: string[][] = [];
  let record: string[] = [], at = 0;
  const pattern = /(?:"((?:[^"]|"")*)"|((?!")[^,\r\n]*))(,|\r\n|\r|\n|$)/y;
  while (at < text.length || record.length > 0) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (!match) return undefined;
    const [all, quoted, plain, after] = match;
    record.push(quoted?.replaceAll('""', '"') ?? plain);
    at += all.length;
    if (after === ",") continue;
    if (record.length > 1 || all.length > after.length) records.push(record);
    record = [];
  }
  const [names, ...others] = records;
  if (!names || new Set(names).size < names.length || others.some(({ length }) => length !== names.length)) {
    return undefined;
  }
  return others.map((cells) => Object.fromEntries(names.map((name, i) => [name, cells[i]])));
}

const worker = parquetWorker(256);
for (const name of ["plain", "snappy", "gzip", "zstd", "delta"]) {
  Deno.test(`damaged Parquet files are rejected or have rows with the file's columns (${name})`, async () => {
    const original = await Deno.readFile(`${golden}${name}.parquet`),
      columns = ["text", "label", "score", "right", "name", "messages"];
    // Half of the changes are made in the footer at the end of the file, which contains sizes and names.
    const place = (random: RandomGenerator, length: number) =>
      random.randint(2) ? random.randint(length) : Math.max(0, length - 1 - random.randint(2500));
    const judge = (_: unknown, rows: Rows | undefined, what: string) => {
      for (const row of rows ?? []) assert(isObject(row) && Object.keys(row).length <= columns.length, what);
    };
    await outcomes("a.parquet", original, (path) => readParquet(path, { worker, seconds: 5 }), judge, place);
  });
}
