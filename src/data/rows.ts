/** Reads rows of named columns from files: JSON lines, a JSON array, comma-separated values or Parquet. */
import { DataError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { shown } from "../files/shown.ts";
import { parseRecord, recordEnd } from "./csv.ts";
import { ArrayCuts, checkNothingAfter, firstSign } from "./json_array.ts";
import { readParquet } from "./parquet.ts";
import { lineEnd, type Piece, pieces } from "./pieces.ts";

/** One row of a file. */
export interface Row {
  /** Place in the file for messages: "chats.jsonl, line 12" or "facts.parquet, row 3". */
  readonly where: string;
  /** Values by the names of their columns. All values of a CSV file are texts, including JSON in a cell. */
  readonly columns: Readonly<Record<string, unknown>>;
  /** Names of all columns in the file, if `columns` may hold only some of them. */
  readonly names?: readonly string[];
}

/** Options of {@linkcode readRows}. */
export interface RowOptions {
  /**
   * Names of the columns that the caller needs. Parquet reads only these columns; other formats ignore this. Default:
   * all.
   */
  readonly columns?: ReadonlySet<string>;
}

/** Readers by the ending of the file's name. */
const READERS: Record<string, (path: string, options: RowOptions) => AsyncGenerator<Row>> = {
  jsonl: readJsonLines,
  ndjson: readJsonLines,
  json: readJson,
  csv: readCsv,
  parquet: readParquet,
};

/**
 * Reads the rows of a file, which may be larger than memory: only one row is in memory at a time, or one row group of a
 * Parquet file.
 *
 * @param path file whose name ends in .jsonl, .ndjson, .json, .csv or .parquet
 * @throws {DataError} when the file is not in the format of its ending, is not UTF-8, is damaged, has no rows, or
 * changes while it is read. The message names the line
 */
export async function* readRows(path: string, options: RowOptions = {}): AsyncGenerator<Row> {
  const ending = /\.(\w+)$/.exec(path)?.[1].toLowerCase() ?? "";
  if (!Object.hasOwn(READERS, ending)) {
    throw new DataError(
      `${path || "''"}: expected a file with rows, whose name ends in .${Object.keys(READERS).join(", .")}`,
    );
  }
  let empty = true;
  for await (const row of READERS[ending](path, options)) {
    empty = false;
    yield row;
  }
  if (empty) throw new DataError(`${path} has no rows`);
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf({ bytes }: Piece, where: string): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new DataError(`${where}: not UTF-8 text; save the file as UTF-8`);
  }
}

/** Parses a row. @throws {DataError} when the text is not JSON, or not an object */
function parseRow(text: string, where: string): Row {
  let columns: unknown;
  try {
    columns = JSON.parse(text);
  } catch (error) {
    throw new DataError(`${where}: not JSON: ${shown((error as Error).message)}`);
  }
  if (isObject(columns)) return { where, columns };
  const found = columns === null ? "null" : Array.isArray(columns) ? "an array" : `a ${typeof columns}`;
  throw new DataError(`${where}: expected an object with named values, {"text": "…"}, not ${found}`);
}

async function* readJsonLines(path: string): AsyncGenerator<Row> {
  for await (const piece of pieces(path, lineEnd)) {
    const where = `${path}, line ${piece.line}`, text = textOf(piece, where);
    if (text.trim()) yield parseRow(text, where);
  }
}

/** Reads an array of objects. If the file does not begin with `[`, it is read as JSON lines. */
async function* readJson(path: string): AsyncGenerator<Row> {
  const cuts = new ArrayCuts();
  let row = 0, open = false, sign: string | undefined, after = false;
  for await (
    const piece of pieces(path, (bytes, from, last) => {
      sign ??= firstSign(bytes);
      if (sign === undefined) return last ? bytes.length : -1;
      return sign === "[" ? cuts.findEnd(bytes, from, last) : lineEnd(bytes, from, last);
    })
  ) {
    const where = `${path}, line ${piece.line}`, text = textOf(piece, where);
    if (sign !== "[") {
      if (text.trim()) yield parseRow(text, where);
    } else if (after) checkNothingAfter(text, where);
    else if (!open) open = true;
    else {
      const isLast = cuts.depth === 0, element = /[,\]]$/.test(text) ? text.slice(0, -1) : text;
      after = isLast;
      if (isLast && row === 0 && !element.trim()) continue; // the array is empty
      row++;
      if (!isLast && !text.endsWith(",")) throw new DataError(`${path} is cut off: its array does not end`);
      yield parseRow(element, `${path}, row ${row}, near line ${piece.line}`);
    }
  }
  if (open && !after) throw new DataError(`${path} is cut off: its array does not end`);
}

async function* readCsv(path: string): AsyncGenerator<Row> {
  let names: readonly string[] | undefined;
  for await (const piece of pieces(path, recordEnd())) {
    const where = `${path}, line ${piece.line}`, cells = parseRecord(textOf(piece, where), where);
    if (cells.length === 0) continue;
    if (!names) {
      const twice = cells.find((name, i) => cells.indexOf(name) < i);
      if (twice !== undefined) throw new DataError(`${where}: two columns are called ${JSON.stringify(shown(twice))}`);
      names = cells;
    } else if (cells.length === names.length) {
      yield { where, columns: Object.fromEntries(names.map((name, i) => [name, cells[i]])) };
    } else {
      throw new DataError(
        `${where}: ${cells.length} cells, but the first line names ${names.length} columns; ` +
          "quote cells that contain commas or line ends",
      );
    }
  }
}
