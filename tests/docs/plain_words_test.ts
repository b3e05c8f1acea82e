// deno-lint-ignore-file plain-words/words -- the tests below contain the banned forms
/// <reference lib="deno.unstable" />
/**
 * Tests that texts which `deno lint` does not read have none of the banned forms of words in scripts/plain_words.ts: pages
 * (Markdown), comments of shaders, and comments and docstrings of Python. A form is also found if it continues on the next
 * line.
 */
import { assertEquals } from "@std/assert";
import plugin, { found } from "../../scripts/plain_words.ts";

const root = new URL("../../", import.meta.url);
/** The folders to check, with their subfolders. Other folders, such as those of training runs, are not checked. */
const FOLDERS = ["bench", "data", "docs", "examples", "kernels", "links", "src", "tests"];

/** A paragraph, a comment or a table cell: its lines, each with its line number in the file. */
type Passage = [number: number, line: string][];

/** Splits numbered lines into passages. An `undefined` line or an empty line ends a passage. */
function passages(lines: Iterable<[number: number, line: string | undefined]>): Passage[] {
  const all: Passage[] = [[]];
  for (const [number, line] of lines) {
    if (line === undefined || line.trim() === "") all.push([]);
    else all.at(-1)!.push([number, line.trim()]);
  }
  return all.filter((passage) => passage.length > 0);
}

/** The prose of a page: paragraphs, list items, headings and table cells, without code fences, formulas and links' targets. */
function* markdown(text: string): Generator<[number: number, line: string | undefined]> {
  const prose = text.replace(/^ *(`{3,})[^]*?^ *\1$/gm, (code) => code.replace(/[^\n]/g, ""))
    .replace(/\]\([^)\s]*\)/g, "]").replace(/[*_]{2}/g, "");
  for (const [i, line] of prose.split("\n").entries()) {
    const number = i + 1, begins = /^\s*(?:[-*] |\d+\. |#+ |> ?)/.exec(line);
    if (/^ {4}/.test(line) && !begins) yield [number, undefined];
    else if (/^\s*\|/.test(line)) {
      for (const cell of line.replaceAll("\\|", "  ").split("|")) {
        yield [number, cell];
        yield [number, undefined];
      }
    } else {
      if (begins) yield [number, undefined];
      yield [number, begins ? line.slice(begins[0].length) : line];
      if (line.startsWith("#")) yield [number, undefined];
    }
  }
}

/** The comments of a shader's module: consecutive lines of comments are one passage. */
function* shader(text: string): Generator<[number: number, line: string | undefined]> {
  let open = false;
  for (const [i, line] of text.split("\n").entries()) {
    if (/^\s*\/\*/.test(line)) open = true;
    const comment = open ? /^\s*(?:\/\*+|\*(?!\/))?(.*?)(?:\*\/.*)?$/ : /(?:^|\s)\/\/+ ?(.*)$/;
    const words = comment.exec(line)?.[1], own = open || /^\s*\/\//.test(line);
    if (!own) yield [i + 1, undefined];
    yield [i + 1, words];
    if (!own) yield [i + 1, undefined];
    if (line.includes("*/")) open = false;
  }
}

/** The comments and docstrings of Python. */
function* python(text: string): Generator<[number: number, line: string | undefined]> {
  let open = false;
  for (const [i, line] of text.split("\n").entries()) {
    const doc: string | undefined = open ? line : /^\s*[rf]?"""(.*)$/.exec(line)?.[1],
      own = doc !== undefined || /^\s*#/.test(line);
    if (!own) yield [i + 1, undefined];
    yield [i + 1, (doc ?? /(?:^|\s)# ?(.*)$/.exec(line)?.[1])?.replace(/""".*/, "").replaceAll("``", "`")];
    if (!own) yield [i + 1, undefined];
    if (doc !== undefined) {
      open = !doc.includes('"""');
      if (!open) yield [i + 1, undefined];
    }
  }
}

const READERS: Record<string, (text: string) => Iterable<[number: number, line: string | undefined]>> = {
  ".md": markdown,
  ".wgsl.ts": shader,
  ".py": python,
};
const readerOf = (name: string) => Object.entries(READERS).find(([ending]) => name.endsWith(ending))?.[1];

/** Finds the banned forms in a file: for each, a line with the file, the line number, the words, and what to write instead. */
function formsIn(file: string, text: string): string[] {
  return passages(readerOf(file)!(text)).flatMap((passage) => {
    const joined = passage.map(([, line]) => line).join(" ");
    return [...found(joined)].sort((a, b) => a.at - b.at).map(({ at, words, instead }) => {
      let [end, i] = [passage[0][1].length, 0];
      while (at > end) end += 1 + passage[++i][1].length;
      return `${file}:${passage[i][0]}: "${words}": ${instead}`;
    });
  });
}

async function* filesIn(folder: string, deep = true): AsyncGenerator<string> {
  for await (const { name, isFile, isDirectory } of Deno.readDir(new URL(folder, root))) {
    if (isFile && readerOf(name)) yield folder + name;
    if (isDirectory && deep && !/^(?:\.|node_modules$|out)/.test(name)) yield* filesIn(`${folder}${name}/`);
  }
}

Deno.test("docs: pages, shaders and Python have no banned forms of words", async () => {
  const files = await Array.fromAsync(filesIn("", false));
  for (const folder of FOLDERS) files.push(...await Array.fromAsync(filesIn(`${folder}/`)));
  const forms = await Promise.all(
    files.sort().map(async (file) => formsIn(file, await Deno.readTextFile(new URL(file, root)))),
  );
  assertEquals(forms.flat(), []);
});

Deno.test("docs: banned forms are found in every kind of file, also across lines, but not in code", () => {
  const lines = (file: string, text: string) =>
    formsIn(file, text).map((line) => line.split(": ").slice(0, 2).join(" "));
  const page = ["# The page", "", "Each thread reads its rows, and the", "others wait. `the others`", ""];
  const fence = ["```ts", "// it lies there", "```", "", "| a | b |", "| --- | --- |", "| `kept` | it was told |"];
  assertEquals(lines("a.md", [...page, ...fence].join("\n")), ['a.md:3 "the others"', 'a.md:12 "told"']);
  const wgsl = "/** What a lane\n * lies on. */\nexport default `\n// A row, behind\nlet kept = 1; // so\n// many\n`;";
  assertEquals(lines("a.wgsl.ts", wgsl), ['a.wgsl.ts:2 "lies"', 'a.wgsl.ts:4 "behind"']);
  const py = '"""A case that nobody\nneeds, for so\nlong."""\n# Rows are\n# kept.\nkept = "told"  # till then\n';
  assertEquals(lines("a.py", py), ['a.py:1 "nobody"', 'a.py:2 "for so long"', 'a.py:5 "kept"', 'a.py:6 "till"']);
});

Deno.test("docs: the lint finds banned forms in comments and strings, but not in names and code spans", () => {
  const messages = (source: string) =>
    Deno.lint.runPlugin(plugin, "file.ts", source).map(({ message }) => /^"([^"]*)"/.exec(message)?.[1]);
  assertEquals(messages("/** How long the\n * others wait. */\nexport const a = 1;"), ["the others"]);
  assertEquals(messages("f(); // threads take\n// so many\n// rows"), ["so many"]);
  assertEquals(messages('throw new Error("the file is kept there");'), ["kept"]);
  assertEquals(messages("throw new Error(`${1} is no valid id`);"), ["is no"]);
  assertEquals(messages('export const kept = "told"; // `kept`'), []);
});
