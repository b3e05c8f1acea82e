/// <reference lib="deno.unstable" />
/**
 * Builds the documentation as a static site: `deno task docs [FOLDER]` (default: site/). A given folder must not exist
 * yet.
 *
 * TypeDoc renders README.md, the pages of docs/, and the public symbols of all entry points in deno.json. In addition,
 * the site has a page for each source file that a page links to, and the playground of examples/browser/.
 *
 * Links are relative, so the site works under any path. All pages but the playground can also be opened as local
 * files.
 */
import config from "../../deno.json" with { type: "json" };
import { files as playgroundFiles } from "../../examples/browser/serve.ts";
import { importNpm } from "../npm.ts";
import { nameParameters } from "./parameters.ts";
import { sourceName, sourcePage } from "./source.ts";
import type { Parameter, Project, Reflection } from "./typedoc.ts";

const root = new URL("../../", import.meta.url), here = (name: string) => new URL(name, import.meta.url);
const folder = Deno.args[0] ?? "site";
Deno.chdir(root);
if (folder !== "site") await Deno.mkdir(folder); // throws if it exists: TypeDoc would empty it
/** Stands for the site's root in links. When a page is rendered, it is replaced by `../` for each folder above the page. */
const SITE = "site:";

/** Paths and names of pages: first the rows of README.md's last table, then the rest of docs/. */
async function findPages(): Promise<Map<string, string>> {
  const [, table] = (await Deno.readTextFile("README.md")).split("## Documentation");
  const pages = new Map(table.matchAll(/^\| \[([^\]]+)\]\(([^)]+)\)/gm).map(([, name, path]) => [path, name]));
  for await (const { name } of Deno.readDir("docs")) {
    if (name.endsWith(".md") && !pages.has(`docs/${name}`)) pages.set(`docs/${name}`, name.slice(0, -3));
  }
  return pages;
}

/** Adds to the playground's page a link to the site, and the service worker that makes threads possible. */
function adapt(html: string): string {
  return html.replace("<header>", '<header>\n<p><a href="../index.html">nanogpt-ts</a></p>')
    .replace("</head>", '<script src="isolate.js"></script></head>');
}

const typedoc = await importNpm("typedoc");
const pages = await findPages(), entries = Object.entries(config.exports);
const app = await typedoc.Application.bootstrap({
  name: "nanogpt-ts",
  readme: "README.md",
  projectDocuments: [...pages.keys()],
  entryPoints: entries.map(([, path]) => path),
  basePath: ".",
  displayBasePath: ".",
  disableGit: true,
  gitRevision: "main",
  sourceLinkTemplate: `${SITE}source/{path}#L{line}`,
  skipErrorChecking: true, // `deno task check` checks the types
  excludePrivate: true,
  excludeInternal: true,
  externalPattern: ["**/node_modules/**", "**/lib.*.d.ts"],
  excludeExternals: true, // members that classes inherit from JavaScript's classes
  sort: ["kind", "alphabetical"],
  sortEntryPoints: false,
  navigation: { includeGroups: false, includeFolders: false },
  navigationLinks: { Playground: `${SITE}playground/index.html` },
  preservedTypeAnnotationTags: ["@throws"],
  searchInComments: true,
  searchInDocuments: true,
  searchGroupBoosts: { Documents: 5, Classes: 1.5, Functions: 1.2 },
  markdownItOptions: { html: true, linkify: false },
  highlightLanguages: ["typescript", "javascript", "json", "bash", "sh", "python", "nginx", "html"],
  validation: { notExported: false, invalidPath: false, invalidLink: true, rewrittenLink: false },
  customCss: here("style.css").pathname,
  favicon: here("icon.svg").pathname,
  router: "site",
  hideGenerator: true,
});
// 99 is `target: ESNext` and `module: ESNext`; 100 is `moduleResolution: bundler`.
app.options.setCompilerOptions(
  entries.map(([, path]) => new URL(path, root).pathname),
  { strict: true, target: 99, module: 99, moduleResolution: 100, lib: ["lib.esnext.d.ts", "lib.dom.d.ts"], types: [] },
  undefined,
);
const { Converter, KindRouter, PageEvent, ReflectionKind } = typedoc;

/**
 * Gives pages short addresses, such as docs/reading.html, api/nn.html and api/nn.Linear.html. TypeDoc's own addresses also
 * name the kind of the symbol, as in classes/nn.Linear.html.
 */
class SiteRouter extends KindRouter {
  getIdealBaseName(reflection: Reflection): string {
    if (reflection.isDocument()) return `docs/${files.get(reflection)!.replace(/^docs\/|\.md$/g, "").toLowerCase()}`;
    const names: string[] = [];
    for (let at: Reflection | undefined = reflection; at && !at.isProject(); at = at.parent) names.unshift(at.name);
    return `api/${names.join(".").replace(/^@nanogpt\/ts\/?/, "").replace(/^(?=\.|$)/, "main").replaceAll("/", "_")}`;
  }
}
app.renderer.defineRouter("site", SiteRouter);

// A parameter that a function destructures, as in f({ a, b }), has no name of its own.
const unnamed = new Set<Parameter>();
app.converter.on(Converter.EVENT_CREATE_PARAMETER, (_context: unknown, parameter: Parameter) => {
  if (parameter.name === "__namedParameters") unnamed.add(parameter);
});
app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }: { project: Project }) => {
  for (const signature of project.getReflectionsByKind(ReflectionKind.SomeSignature)) {
    if (signature.sources?.[0].fileName.startsWith("..")) delete signature.sources; // from TypeScript's library
    nameParameters(signature, signature.parameters?.filter((parameter) => unnamed.has(parameter)) ?? []);
  }
});

/** The file of each page, and the source files that pages link to. */
const files = new Map<Reflection, string>(), sources = new Set<string>();
const project: Project | undefined = await app.convert();
if (!project) Deno.exit(1); // TypeDoc has printed the error
for (const module of project.children) {
  const [name] = entries.find(([, path]) => path === `./${module.name}.ts`)!;
  module.name = `@nanogpt/ts${name.slice(1)}`;
}
for (const page of project.documents) {
  files.set(page, `${page.name}.md`);
  page.name = pages.get(`${page.name}.md`)!;
}
for (const part of [...project.readme, ...project.documents.flatMap(({ content }) => content)]) {
  const target = part.kind === "relative-link" && project.files.resolve(part.target, project);
  if (typeof target !== "string" || target.endsWith(".svg")) continue;
  part.kind = "text"; // TypeDoc would copy the file into the site
  part.text = `${SITE}source/${target.slice(root.pathname.length)}`;
}

/** A rendered page. Pages of source files are copies of this page with different content. */
let frame = "";
/** Fetches the search index when the search box is opened. */
const LAZY_SEARCH = `<script>
addEventListener("focusin", ({ target }) => {
  const script = document.getElementById("tsd-search-script");
  if (target.id === "tsd-search-input" && !script.src) script.src = script.dataset.src;
});
</script><script data-src="$1" id="tsd-search-script">`;
app.renderer.on(PageEvent.END, (page: { url: string; contents: string }) => {
  const base = "../".repeat(page.url.split("/").length - 1);
  page.contents = page.contents
    .replaceAll(/"site:source\/([^"#]+)/g, (_, path) => {
      sources.add(path);
      return `"${SITE}source/${sourceName(path)}`;
    })
    .replaceAll(`"${SITE}`, `"${base}`)
    .replace(/<div class="tsd-page-title">\s*<h1>nanogpt-ts<.h1><.div>(?=\s*<div class="tsd-panel)/, "") // README.md has a title
    .replace(/<script async src="([^"]*)" id="tsd-search-script">/, LAZY_SEARCH);
  if (/^docs\/[^/]+$/.test(page.url)) frame = page.contents;
});
await app.generateDocs(project, folder);

await Deno.mkdir(`${folder}/source`);
for (const path of sources) {
  await Deno.writeTextFile(
    `${folder}/source/${sourceName(path)}`,
    sourcePage(frame, path, await Deno.readTextFile(path)),
  );
}

await Deno.mkdir(`${folder}/playground`);
for (const [path, { body }] of await playgroundFiles()) {
  await Deno.writeTextFile(
    `${folder}/playground${path === "/" ? "/index.html" : path}`,
    path === "/" ? adapt(body) : body,
  );
}
await Deno.copyFile(here("isolate.js"), `${folder}/playground/isolate.js`);
console.log(`${folder}/index.html`);
