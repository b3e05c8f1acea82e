/** What the pages name is there: files that they link to, and headings in them. */
import { assertEquals } from "@std/assert";

const root = new URL("../../", import.meta.url);
const folders = ["", "docs/", "data/", "data/shakespeare/"];

/** As GitHub names a heading: letters, digits and hyphens. */
const anchor = (heading: string) =>
  heading.trim().toLowerCase().replace(/[`*_]|\]\([^)]*\)|\[/g, "").replace(/[^\p{L}\p{N} -]/gu, "").replaceAll(
    " ",
    "-",
  );

/** The changelog is left out: it names files by the names of its time. */
async function pages(): Promise<string[]> {
  const found = await Promise.all(folders.map(async (folder) => {
    const entries = await Array.fromAsync(Deno.readDir(new URL(folder, root)));
    return entries.filter(({ name }) => name.endsWith(".md") && name !== "CHANGELOG.md").map(({ name }) =>
      folder + name
    );
  }));
  return found.flat();
}

Deno.test("docs: every link inside the repository leads to a file, and to a heading where it names one", async () => {
  const wrong: string[] = [];
  for (const page of await pages()) {
    const text = (await Deno.readTextFile(new URL(page, root))).replace(/^(`{3,})[^]*?^\1$/gm, "");
    for (const [, link] of text.matchAll(/\]\((?!\w+:)([^)\s]+)\)/g)) {
      const [path, heading] = link.split("#"),
        url = path === "" ? new URL(page, root) : new URL(path, new URL(page, root));
      const found = await Deno.stat(url).catch(() => undefined);
      if (!found) wrong.push(`${page}: ${link}`);
      if (!found || !heading) continue;
      const headings = (await Deno.readTextFile(url)).matchAll(/^#+ (.*)$/gm).map(([, words]) => anchor(words));
      if (![...headings].includes(heading)) wrong.push(`${page}: ${link} (no such heading)`);
    }
  }
  assertEquals(wrong, []);
});

Deno.test("docs: the version that is cited is the package's", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const cited = await Deno.readTextFile(new URL("CITATION.cff", root));
  assertEquals(/^version: (.*)$/m.exec(cited)?.[1], version);
});
