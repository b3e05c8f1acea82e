/// <reference lib="deno.unstable" />
/**
 * Bundles the page and its worker and serves them on this machine: `deno task browser [--port=8000] [--no-isolation]`.
 *
 * Pages may share memory between threads only when they are cross-origin isolated, which two headers ask for. With
 * `--no-isolation` they are left out, as on most web servers, and the CPU path has one thread.
 */
import { parseArgs } from "@std/cli";
import html from "./index.html" with { type: "text" };
import style from "./style.css" with { type: "text" };

const HELP = `deno task browser [--port=8000] [--no-isolation]

  --port          where to serve; 0 takes any free port (8000)
  --no-isolation  without the headers that threads need: the CPU path has one thread`;

const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/** What is served, by path; the page's code and the worker's are one file each. */
async function files(): Promise<Map<string, { type: string; body: string }>> {
  const found = new Map([
    ["/", { type: "text/html", body: html }],
    ["/style.css", { type: "text/css", body: style }],
  ]);
  for (const name of ["page", "worker"]) {
    const entry = new URL(`${name}.ts`, import.meta.url).pathname;
    const { outputFiles = [] } = await Deno.bundle({ entrypoints: [entry], platform: "browser", write: false });
    found.set(`/${name}.js`, { type: "text/javascript", body: outputFiles[0].text() });
  }
  return found;
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, {
    string: ["port"],
    boolean: ["no-isolation", "help"],
    unknown: (flag) => fail(`unknown flag ${flag}`),
  });
  const port = Number(flags.port ?? 8000);
  if (!Number.isInteger(port) || port < 0 || port > 65535) fail(`--port=${flags.port} is no number from 0 to 65535`);
  if (flags.help) console.log(HELP);
  else await serve(port, !flags["no-isolation"]);
}

async function serve(port: number, isolated: boolean): Promise<void> {
  const found = await files(), headers = isolated ? ISOLATION : {};
  const respond = (request: Request): Response => {
    const file = found.get(new URL(request.url).pathname);
    if (!file) return new Response("There is no such page here.", { status: 404 });
    return new Response(file.body, { headers: { ...headers, "content-type": `${file.type}; charset=utf-8` } });
  };
  const onListen = ({ port }: Deno.NetAddr) => console.log(`Open http://localhost:${port}/ in a browser`);
  Deno.serve({ hostname: "127.0.0.1", port, onListen }, respond);
}

function fail(what: string): never {
  console.error(`error: ${what}\n\n${HELP}`);
  Deno.exit(2);
}
