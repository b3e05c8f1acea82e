/** The documentation's site, built by `deno task docs`: its links, and its pages in Chromium. NANOGPT_SCREENSHOTS names a folder. */
import { assert, assertEquals } from "@std/assert";
import { ignore, openBrowser, type Page } from "./browser.ts";

const root = new URL("../../", import.meta.url), screenshots = Deno.env.get("NANOGPT_SCREENSHOTS");
const folder = ignore ? "" : await Deno.makeTempDir(), site = `${folder}/nanogpt-ts`;
const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const TYPES: Record<string, string> = {
  html: "text/html",
  css: "text/css",
  js: "text/javascript",
  svg: "image/svg+xml",
};
/** A page of each sort. */
const SORTS = [
  "index.html",
  "modules.html",
  "api/main.GPT.html",
  "api/ops.causalSelfAttention.html",
  "source/src_gpt.ts.html",
];

let output = "";
/** The built files: paths with their texts. */
const files = new Map<string, string>();
if (!ignore) {
  addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const args = ["task", "--quiet", "docs", site];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
  output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(success, output);
  await collect("");
}
const pages = [...files.keys()].filter((path) => path.endsWith(".html"));
/** The documents, and the entry points. */
const overviews = pages.filter((path) => /^docs\/|^api\/[^.]*\.html/.test(path));

async function collect(prefix: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(`${site}/${prefix}`)) {
    if (isDirectory) await collect(`${prefix}${name}/`);
    else files.set(prefix + name, await Deno.readTextFile(`${site}/${prefix}${name}`));
  }
}

/** What TypeDoc writes into a script: JSON, compressed, in base64. */
async function unpack(path: string): Promise<unknown> {
  const bytes = Uint8Array.from(atob(files.get(path)!.match(/"(.*)"/)![1]), (letter) => letter.charCodeAt(0));
  return await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

/** Links of `page` that lead nowhere. */
function brokenLinks(page: string, links: Iterable<string>): string[] {
  return [...links].filter((link) => {
    if (/^(https?:|data:|mailto:)/.test(link)) return false;
    const { pathname, hash } = new URL(link.replaceAll("&amp;", "&"), `http://site/${page}`);
    const text = files.get(decodeURIComponent(pathname.slice(1))), id = decodeURIComponent(hash.slice(1));
    return text === undefined || (id !== "" && !text.includes(` id="${id}"`));
  }).map((link) => `${page}: ${link}`);
}

Deno.test({ name: "the site: every link leads to a file, and to an anchor where it names one", ignore }, async () => {
  const broken = pages.flatMap((page) => {
    const links = files.get(page)!.matchAll(/ (?:href|src)="([^"]*)"/g).map(([, link]) => link);
    return brokenLinks(page, links.filter((link) => link !== "#"));
  });
  const { rows } = await unpack("assets/search.js") as { rows: { url: string }[] };
  broken.push(...brokenLinks("search", rows.map(({ url }) => url)));
  const inside = (entry: { path?: string; children?: [] }): string[] => [
    ...entry.path ? [entry.path] : [],
    ...(entry.children ?? []).flatMap(inside),
  ];
  const entries = await unpack("assets/navigation.js") as [];
  broken.push(...brokenLinks("navigation", entries.flatMap(inside)));
  assertEquals(broken, []);
  assert(rows.length > 500 && entries.length > 30);
  assertEquals(pages.flatMap((page) => files.get(page)!.match(/(href|src)="(\/|site:|file:)[^"]*/g) ?? []), []);
});

Deno.test({ name: "the site: no page has more than 300 kB, and TypeDoc has nothing to warn of", ignore }, () => {
  const bytes = (path: string) => new TextEncoder().encode(files.get(path)).length;
  assertEquals(pages.filter((page) => bytes(page) > 300_000), []);
  assert(!output.includes("[warning]"), output);
});

Deno.test("the site: `deno task check` runs the examples of all pages", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  for (const [, path] of readme.split("## Documentation")[1].matchAll(/^\| \[[^\]]+\]\(([^)]+)\)/gm)) {
    if (!path.startsWith("docs/")) {
      assert(!/^```[jt]s/m.test(await Deno.readTextFile(new URL(path, root))), `${path} has examples`);
    }
  }
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  assert(/deno test --doc .* README.md docs /.test(tasks.check.command));
});

/** Serves the site under a path of its own, as web servers that know nothing of it do. */
function serve(headers: Record<string, string> = {}) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname).replace(/^\/nanogpt-ts\//, "") || "index.html";
    const body = files.get(path), type = TYPES[path.split(".").at(-1)!];
    if (body === undefined || type === undefined) return new Response("not found", { status: 404 });
    return new Response(body, { headers: { ...headers, "content-type": `${type}; charset=utf-8` } });
  });
  return {
    url: `http://localhost:${server.addr.port}/nanogpt-ts/`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

interface Options {
  readonly headers?: Record<string, string>;
  readonly width?: number;
  readonly colorScheme?: "light" | "dark";
  readonly serviceWorkers?: "allow" | "block";
}

/** A test with the site in a browser; what the console has as an error fails it. */
function siteTest(
  name: string,
  { headers, width = 1280, ...options }: Options,
  body: (page: Page, url: string) => Promise<void>,
): void {
  // playwright-core keeps timers and streams of its own.
  const fn = async () => {
    await using server = serve(headers);
    const browser = await openBrowser(), errors: string[] = [];
    try {
      const context = await browser.newContext({ viewport: { width, height: 800 }, ...options });
      context.setDefaultTimeout(120_000);
      const page = await context.newPage();
      page.on("pageerror", ({ message }) => errors.push(message));
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(message.text());
      });
      await body(page, server.url);
    } finally {
      await browser.close();
    }
    assertEquals(errors, []);
  };
  Deno.test({ name: `the site: ${name}`, ignore, sanitizeOps: false, sanitizeResources: false, fn });
}

async function picture(page: Page, name: string): Promise<void> {
  if (screenshots) await page.screenshot({ path: `${screenshots}/site_${name.replaceAll("/", "_")}.png` });
}

for (const [width, colorScheme] of [[1280, "light"], [360, "dark"]] as const) {
  siteTest(`pages open at ${width} pixels, ${colorScheme}`, { width, colorScheme }, async (page, url) => {
    for (const path of [...SORTS, ...overviews, "playground/index.html"]) {
      await page.goto(url + path);
      await page.waitForFunction(() => document.readyState === "complete" && document.body.style.display !== "none");
      const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assertEquals([path, content], [path, window]);
      const [red] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g)!);
      if (!path.startsWith("playground")) assert(colorScheme === "dark" ? Number(red) < 64 : Number(red) > 192, path);
      if (!overviews.includes(path)) await picture(page, `${path}_${width}`);
    }
  });
}

siteTest("the search finds symbols and pages, and fetches its index first then", {}, async (page, url) => {
  const requests: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(`${url}docs/reading.html`);
  await page.waitForFunction(() => document.querySelector("#tsd-nav-container a"));
  assert(!requests.includes(`${url}assets/search.js`));
  await page.click("#tsd-search-trigger");
  for (
    const [words, found] of [["causalSelfAttention", "api/ops.causalSelfAttention.html"], ["serv", "docs/serving.html"]]
  ) {
    await page.fill("#tsd-search-input", words);
    await page.waitForFunction((found) => document.querySelector(`#tsd-search-results a[href$="${found}"]`), found);
    await picture(page, `search_${words}`);
  }
  assert(requests.includes(`${url}assets/search.js`));
  await page.click('#tsd-search-results a[href$="docs/serving.html"]');
  await page.waitForFunction(() => location.pathname.endsWith("/docs/serving.html"));
});

for (
  const [words, isIsolated, options] of [
    ["a server that sends the headers", true, { headers: ISOLATION, serviceWorkers: "block" }],
    ["its service worker", true, {}],
    ["neither", false, { serviceWorkers: "block" }],
  ] as const
) {
  siteTest(`the playground trains, isolated by ${words}`, options, async (page, url) => {
    await page.goto(`${url}playground/index.html`);
    if (isIsolated) await page.waitForFunction(() => crossOriginIsolated && document.readyState === "complete");
    await page.waitForFunction(() => document.body.dataset.state === "idle");
    await page.fill("[name=maxIters]", "5");
    await page.selectOption("[name=device]", "cpu");
    await page.click("#main");
    await page.waitForFunction(() => document.body.dataset.state === "finished");
    const threads = await page.evaluate(() => navigator.hardwareConcurrency), path = await page.textContent("#path");
    assert(path.startsWith(isIsolated && threads > 1 ? `CPU with ${threads} threads` : "CPU with one thread"), path);
    assertEquals(path.includes("not cross-origin isolated"), !isIsolated);
    assert((await page.textContent("#log")).includes("iter 0: loss"));
    await picture(page, `playground_${words}`);
    await page.click("header a");
    await page.waitForFunction(() => document.querySelector("#tsd-nav-container a"));
  });
}

Deno.test({ name: "the site: opened from a disk", ignore, sanitizeOps: false, sanitizeResources: false }, async () => {
  const browser = await openBrowser(), errors: Error[] = [];
  try {
    const page = await (await browser.newContext()).newPage();
    page.on("pageerror", (error) => errors.push(error));
    await page.goto(`file://${site}/index.html`);
    await page.click('a[href="docs/reading.html"]');
    await page.click('a[href="../source/src_gpt.ts.html"]');
    await page.waitForFunction(() => document.querySelector("#tsd-nav-container a"));
    assert((await page.textContent("#L1")).length > 1);
  } finally {
    await browser.close();
  }
  assertEquals(errors, []);
});
