/** Text out of a file as a message shows it: on one line, and not the whole of what a damaged length has made of it. */
export function shown(text: string): string {
  const printable = text.slice(0, 80).replace(/[\p{C}\p{Z}]/gu, (character) => character === " " ? " " : "?");
  return text.length > 80 ? `${printable}…` : printable;
}

/** The first three of a list, and how many more there are. */
export const some = (list: readonly string[]): string =>
  list.slice(0, 3).join("; ") + (list.length > 3 ? `; and ${list.length - 3} more` : "");
