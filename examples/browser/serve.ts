/// <reference lib="deno.unstable" />
/**
 * Bundles the page and its worker, and serves them to this machine: `deno task browser [--port=8000] [--no-isolation]`.
 *
 * A page can share memory between threads only if it is cross-origin isolated, which two headers request.
 * `--no-isolation` leaves them out, as most web servers do; the CPU device has one thread then.
 */
import { runCommand } from "../../src/cli/command.ts";
import { ConfigError } from "../../src/errors.ts";
import html from "./index.html" with { type: "text" };
import style from "./style.css" with { type: "text" };
import base from "../../src/page/base.css" with { type: "text" };

const HELP = `Usage: deno task browser [--port=8000] [--no-isolation]

  --port          the port to listen on; 0 takes any free port (default: 8000)
  --no-isolation  leave out the headers that threads need: the CPU device has one thread`;

const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/** The served files by path. The code of the page and of the worker is bundled into one file each. */
export async function files(): Promise<Map<string, { type: string; body: string }>> {
  const found = new Map([
    ["/", { type: "text/html", body: html }],
    ["/style.css", { type: "text/css", body: base + style }],
  ]);
  for (const name of ["page", "worker"]) {
    const entrypoints = [new URL(`${name}.ts`, import.meta.url).href];
    // Not minified: esbuild before 0.28.1, such as Deno's, then loses the disposal of some `using` declarations.
    const { outputFiles, errors } = await Deno.bundle({ entrypoints, platform: "browser", write: false });
    const body = outputFiles?.[0]?.text();
    if (!body) throw new TypeError(`${name}.ts cannot be bundled: ${errors.map(({ text }) => text).join(", ")}`);
    found.set(`/${name}.js`, { type: "text/javascript", body });
  }
  return found;
}

async function browser(args: string[]): Promise<number> {
  const unknown = args.find((arg) => !/^--(port=.+|no-isolation|help)$/s.test(arg));
  if (unknown !== undefined) throw new ConfigError(`unknown flag ${unknown}\n${HELP.split("\n")[0]}`);
  const word = args.findLast((arg) => arg.startsWith("--port="))?.slice("--port=".length) ?? "8000",
    port = Number(word);
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new ConfigError(`--port=${word}: expected a whole number from 0 to 65535`);
  }
  if (args.includes("--help")) console.log(HELP);
  else await serve(port, args.includes("--no-isolation") ? {} : ISOLATION);
  return 0;
}

async function serve(port: number, headers: Record<string, string>): Promise<void> {
  const found = await files();
  const respond = (request: Request): Response => {
    const file = found.get(new URL(request.url).pathname);
    if (!file) return new Response("Page not found.", { status: 404 });
    return new Response(file.body, { headers: { ...headers, "content-type": `${file.type}; charset=utf-8` } });
  };
  const onListen = ({ port }: Deno.NetAddr) => console.log(`Open http://localhost:${port}/ in a browser`);
  try {
    await Deno.serve({ hostname: "127.0.0.1", port, onListen }, respond).finished;
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new ConfigError(`--port=${port}: another program uses this port; --port=0 takes any free port`);
  }
}

if (import.meta.main) await runCommand(browser);
