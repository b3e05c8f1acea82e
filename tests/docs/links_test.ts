/** Tests that the links in the pages lead to existing files and headings. */
import { assertEquals } from "@std/assert";

const root = new URL("../../", import.meta.url);
const folders = ["", "docs/", "data/", "data/shakespeare/"];

/** GitHub's anchor for a heading: its letters and digits in lower case, with hyphens for spaces. */
const anchor = (heading: string) =>
  heading.trim().toLowerCase().replace(/[`*_]|\]\([^)]*\)|\[/g, "").replace(/[^\p{L}\p{N} -]/gu, "").replaceAll(
    " ",
    "-",
  );

/** The Markdown pages, without the changelog, which names files that were renamed or deleted later. */
async function pages(): Promise<string[]> {
  const found = await Promise.all(folders.map(async (folder) => {
    const entries = await Array.fromAsync(Deno.readDir(new URL(folder, root)));
    return entries.filter(({ name }) => name.endsWith(".md") && name !== "CHANGELOG.md").map(({ name }) =>
      folder + name
    );
  }));
  return found.flat();
}

Deno.test("docs: every link inside the repository leads to a file, and to a heading if it has an anchor", async () => {
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

Deno.test("docs: CITATION.cff has the version of the package", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const cited = await Deno.readTextFile(new URL("CITATION.cff", root));
  assertEquals(/^version: (.*)$/m.exec(cited)?.[1], version);
});
