/** A page that shows a source file. Its lines are numbered, and #L12 is line 12. */

/** The page's file: all are in one folder, so that links between pages are the same in each. */
export const sourceName = (path: string): string => `${path.replaceAll("/", "_")}.html`;

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Puts the file into `frame`, a page of the site in another folder of the same depth, in place of that page's content. */
export function sourcePage(frame: string, path: string, text: string): string {
  const lines = text.trimEnd().split("\n").map((line, index) => `<span id="L${index + 1}">${escape(line)}\n</span>`);
  const content = `<div class="col-content"><div class="tsd-page-title"><h1>${path}</h1></div>` +
    `<pre class="source" tabindex="0">${lines.join("")}</pre></div>`;
  return frame
    .replace(/<title>.*?<\/title>/, `<title>${path} | nanogpt-ts</title>`)
    .replace(/<div class="col-content">.*(?=<div class="col-sidebar">)/s, () => content)
    .replace(/<details [^>]*tsd-page-navigation.*?<\/details>/s, "");
}
