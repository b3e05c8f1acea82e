/**
 * Serves the page at `/`: the files of src/page, read once at the start. Its modules are served one by one, under their
 * own names. Their types are removed by the runtime's `stripTypeScriptTypes`, which preserves lines and columns, so
 * neither a bundler nor a build is needed.
 */
import type * as NodeModule from "node:module";
import { builtin } from "../files/system.ts";
import { PAGE } from "../page/files.ts";
import { notFound } from "./errors.ts";
import { type Route, route } from "./routes.ts";

const TYPES: Readonly<Record<string, string>> = { html: "text/html", css: "text/css", ts: "text/javascript" };
/**
 * The page may load scripts and styles from this server only, and send requests to this server only. Markup in a
 * model's text could do no more than that.
 */
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

/** Makes the routes for the page's own files. They need no key, because all data comes from the other routes. */
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
