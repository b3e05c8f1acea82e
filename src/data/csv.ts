/**
 * Comma-separated values (RFC 4180): a first line with the columns' names, cells in quotes where they contain commas, quotes or
 * line ends, and a quote inside written twice. As Python's csv module does, a quote that does not stand first in its cell is taken
 * as it stands, and a line may also end with LF or CR alone. Empty lines are passed over.
 */
import { DataError } from "../errors.ts";
import type { FindEnd } from "./pieces.ts";

const QUOTE = 34, COMMA = 44, LF = 10, CR = 13;

/** Finds the ends of records: line ends that stand in no quoted cell. */
export function recordEnd(): FindEnd {
  /** Where in a cell the place is. */
  let state: "begin" | "plain" | "quoted" | "after quote" = "begin";
  return (bytes, from, last) => {
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at];
      if (state === "quoted") {
        if (byte === QUOTE) state = "after quote";
      } else if (byte === QUOTE && state !== "plain") state = "quoted"; // the first, or the second of two
      else if (byte === LF || byte === CR) {
        state = "begin";
        // Whether a LF follows a CR is known with the next byte, and that LF is passed over as an empty line where it comes later.
        return byte === CR && bytes[at + 1] === LF ? at + 2 : at + 1;
      } else state = byte === COMMA ? "begin" : "plain";
    }
    if (!last) return -1;
    state = "begin";
    return bytes.length;
  };
}

/** The cells of a record, or of an empty line none. @throws {DataError} when quotes do not fit; `where` the record is */
export function parseRecord(text: string, where: string): string[] {
  const cells: string[] = [], record = text.replace(/\r\n$|[\r\n]$/, "");
  if (record === "") return cells;
  for (let at = 0;; at++) { // after a comma
    let end;
    if (record[at] === '"') {
      for (end = at + 1; record[end] !== '"' || record[end + 1] === '"'; end += record[end] === '"' ? 2 : 1) {
        if (end >= record.length) throw new DataError(`${where}: a quoted cell does not end`);
      }
      cells.push(record.slice(at + 1, end++).replaceAll('""', '"'));
      if (end < record.length && record[end] !== ",") {
        throw new DataError(
          `${where}: after the quotes of cell ${cells.length} comes ${JSON.stringify(record.slice(end, end + 20))} ` +
            "in place of a comma: quotes inside a quoted cell are written twice",
        );
      }
    } else {
      end = record.indexOf(",", at);
      if (end < 0) end = record.length;
      cells.push(record.slice(at, end));
    }
    if (end >= record.length) return cells;
    at = end;
  }
}
