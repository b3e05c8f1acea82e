/**
 * Comma-separated values (RFC 4180). The first line names the columns. A cell that contains commas, quotes or line ends
 * is quoted, and a quote inside a quoted cell is doubled. As in Python's csv module, a quote that is not the first
 * character of its cell is an ordinary character, and a line may also end with LF or CR alone. Empty lines are skipped.
 */
import { DataError } from "../errors.ts";
import type { FindEnd } from "./pieces.ts";

const QUOTE = 34, COMMA = 44, LF = 10, CR = 13;

/** Finds the ends of records: line ends outside quoted cells. */
export function recordEnd(): FindEnd {
  /** State of the parser within a cell. */
  let state: "begin" | "plain" | "quoted" | "after quote" = "begin";
  return (bytes, from, last) => {
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at];
      if (state === "quoted") {
        if (byte === QUOTE) state = "after quote";
        // An opening quote, or the second quote of a doubled quote.
      } else if (byte === QUOTE && state !== "plain") state = "quoted";
      else if (byte === LF || byte === CR) {
        state = "begin";
        // If the bytes end with a CR, an LF that follows later is read as an empty line, which is skipped.
        return byte === CR && bytes[at + 1] === LF ? at + 2 : at + 1;
      } else state = byte === COMMA ? "begin" : "plain";
    }
    if (!last) return -1;
    state = "begin";
    return bytes.length;
  };
}

/**
 * The cells of a record; an empty list for an empty line.
 * @param where the record's place in the file, for messages
 * @throws {DataError} when a quoted cell does not end, or is followed by something other than a comma
 */
export function parseRecord(text: string, where: string): string[] {
  const cells: string[] = [], record = text.replace(/\r\n$|[\r\n]$/, "");
  if (record === "") return cells;
  for (let at = 0;; at++) { // `at` is the first character of a cell
    let end;
    if (record[at] === '"') {
      for (end = at + 1; record[end] !== '"' || record[end + 1] === '"'; end += record[end] === '"' ? 2 : 1) {
        if (end >= record.length) throw new DataError(`${where}: a quoted cell does not end`);
      }
      cells.push(record.slice(at + 1, end++).replaceAll('""', '"'));
      if (end < record.length && record[end] !== ",") {
        throw new DataError(
          `${where}: expected a comma after the quoted cell ${cells.length}, not ` +
            `${JSON.stringify(record.slice(end, end + 20))}; a quote inside a quoted cell must be doubled`,
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
