/** Makes pages that show source files. The lines are numbered, and a link with #L12 goes to line 12. */
import { escape } from "../../src/page/plot.ts";

/** Returns the file name of a source file's page. All of these pages are in one folder. */
export const sourceName = (path: string): string => `${path.replaceAll("/", "_")}.html`;

/** Makes the page of a source file from `frame`, a page in a folder of equal depth, whose content is replaced. */
export function sourcePage(frame: string, path: string, text: string): string {
  const lines = text.trimEnd().split("\n").map((line, index) => `<span id="L${index + 1}">${escape(line)}\n</span>`);
  const content = `<div class="col-content"><div class="tsd-page-title"><h1>${path}</h1></div>` +
    `<pre class="source" tabindex="0">${lines.join("")}</pre></div>`;
  return frame
    .replace(/<title>.*?<\/title>/, `<title>${path} | nanogpt-ts</title>`)
    .replace(/<div class="col-content">.*(?=<div class="col-sidebar">)/s, () => content)
    .replace(/<details [^>]*tsd-page-navigation.*?<\/details>/s, "");
}
