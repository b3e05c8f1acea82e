/**
 * The page at `/`: the files of src/page, read once. Its modules are served one by one, under their own names, with the types taken
 * out by the runtime (`stripTypeScriptTypes`, which leaves every line and column where it was), so that a server needs neither a
 * bundler nor a build.
 */
import type * as NodeModule from "node:module";
import { builtin } from "../files/system.ts";
import { PAGE } from "../page/files.ts";
import { notFound } from "./errors.ts";
import { type Route, route } from "./routes.ts";

const TYPES: Readonly<Record<string, string>> = { html: "text/html", css: "text/css", ts: "text/javascript" };
/** What the page may do: run and show what this server has, and ask it alone. A text that holds markup could do no more. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

interface PageFile {
  readonly type: string;
  readonly body: string;
}

function readPage(): Map<string, PageFile> {
  const { stripTypeScriptTypes } = builtin<typeof NodeModule>("node:module");
  return new Map(
    Object.entries(PAGE).map(([name, text]) => {
      const ending = name.split(".").at(-1)!;
      return [name, { type: TYPES[ending], body: ending === "ts" ? stripTypeScriptTypes(text) : text }];
    }),
  );
}

/** The routes of the page's own files, which need no key: what they show asks the other routes. */
export function pageRoutes(): readonly Route[] {
  const files = readPage();
  const answer = (name: string): Response => {
    const file = files.get(name);
    if (!file) throw notFound(`The page has no file ${name.slice(0, 80)}`);
    const headers = { "content-type": `${file.type}; charset=utf-8`, "content-security-policy": POLICY };
    return new Response(file.body, { headers: { ...headers, "referrer-policy": "no-referrer" } });
  };
  const common = { method: "GET", audience: "open" } as const;
  return [
    route({
      ...{ ...common, path: "/", summary: "The page", answers: "text/html" },
      answer: () => answer("index.html"),
    }),
    route({
      ...{ ...common, path: "/page/{file}", summary: "Files of the page", answers: "text/javascript" },
      answer: ({ path }) => answer(path.file),
    }),
  ];
}
