/** Tests that the stops in docs/reading.md exist, and have as many lines of code, rounded to fives, as its table says. */
import { assert, assertEquals } from "@std/assert";

const docs = new URL("../../docs/", import.meta.url);

/** Number of lines without comments and blank lines. */
function codeLines(text: string): number {
  const code = text.replace(/\/\*[^]*?\*\//g, "").split("\n").map((line) => line.trim());
  return code.filter((line) => line !== "" && !line.startsWith("//")).length;
}

Deno.test("reading.md: every stop begins and ends at the named lines, and all stops have at most 1,100 lines of code", async () => {
  const page = await Deno.readTextFile(new URL("reading.md", docs));
  const rows = page.matchAll(/^\| (\d)\. \[[^\]]+\]\(([^)]+)\) +\| `([^`]+)` … `([^`]+)` +\| (\d+) +\|/gm);
  const stops = Array.from(rows, async ([, number, path, from, to, lines]) => {
    const text = await Deno.readTextFile(new URL(path, docs)),
      begin = text.indexOf(from),
      end = text.indexOf(to, begin);
    assert(begin >= 0 && end > begin, `stop ${number}: ${path} has no part from ${from} to ${to}`);
    const there = codeLines(text.slice(begin, end));
    assertEquals(5 * Math.round(there / 5), Number(lines), `stop ${number}: ${path} has ${there} lines of code`);
    return there;
  });
  assertEquals(stops.length, 8);
  assert((await Promise.all(stops)).reduce((a, b) => a + b) <= 1100);
});
