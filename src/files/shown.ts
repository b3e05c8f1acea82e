/** Text from a file, made safe for a message: on one line, without control characters, and cut after 80 characters. */
export function shown(text: string): string {
  const printable = text.slice(0, 80).replace(/[\p{C}\p{Z}]/gu, (character) => character === " " ? " " : "?");
  return text.length > 80 ? `${printable}…` : printable;
}

/** The first three items of a list for a message, and the number of further items. */
export const some = (list: readonly string[]): string =>
  list.slice(0, 3).join("; ") + (list.length > 3 ? `; and ${list.length - 3} more` : "");
