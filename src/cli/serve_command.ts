/** `deno task serve`: serves models over OpenAI's API. */
import { ConfigError, DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { Lock } from "../files/locks.ts";
import { Access, isLoopback, KeyRing } from "../server/auth.ts";
import type { Listener } from "../server/listen.ts";
import { pageRoutes } from "../server/routes_page.ts";
import { serveRoutes } from "../server/server.ts";
import { WorkerEngine } from "../server/worker_engine.ts";
import { command, taskCommand } from "./command.ts";
import { print, type Progress } from "./progress.ts";
import { serveDeclaration, type ServeValues, specsOf } from "./serve_flags.ts";
import { reportDownload } from "./shared_flags.ts";

/** Milliseconds for which the server waits for running answers when it stops. */
const DRAIN = 30_000;
/** Share of the free memory that models may use; the default of `--memory`. */
const FREE_SHARE = 0.8;

export const serve = command({
  ...serveDeclaration,
  async run({ values, progress, interruption }) {
    if (values.new_key || values.revoke_key || values.list_keys) return await changeKeys(values);
    const keys = await KeyRing.open(values.keys), { host: hostname, port, public_host } = values;
    if (keys.keys.length === 0 && (!isLoopback(hostname) || public_host)) {
      throw new ConfigError(
        `Other machines can reach the server, and ${values.keys} has no key\nThis makes a key: ${
          taskCommand("serve", [`--keys=${values.keys}`, "--new_key=NAME"])
        }`,
      );
    }
    // Both are checked before models are loaded.
    await checkPort(hostname, port);
    using _ = values.jobs ? await Lock.take(values.jobs) : undefined;
    const signal = interruption(() => progress.line("Stopping: waiting up to 30 seconds for running answers."));
    await using engine = await load(values, progress);
    // Imported only if needed, because it imports all of training.
    const tuning = values.jobs ? await import("./jobs.ts") : undefined;
    await using jobs = await tuning?.openJobs(values, engine, progress);
    if (jobs && keys.keys.length === 0) {
      const words = taskCommand("serve", [`--jobs=${values.jobs}`, "--new_key=NAME"]);
      progress.line(
        `Files and jobs need a key, and ${values.keys} has no key. This makes one, even while the server runs:\n  ${words}`,
      );
    }
    const access = new Access({ keys, hostname, publicHost: public_host || undefined });
    const more = [...pageRoutes(), ...jobs && tuning ? tuning.tuningRoutes(jobs, values) : []];
    await using listener = await listening(values, () => serveRoutes({ engine, access }, { hostname, port, more }));
    revoke(jobs && ["net", "run", "ffi"]);
    announce(listener, engine, values, progress);
    const stopped = new Promise((resolve) => signal.addEventListener("abort", resolve));
    if (!signal.aborted) await Promise.race([stopped, engine.failed]);
    await Promise.all([engine.drain(DRAIN), listener.drain(DRAIN), jobs?.drain()]);
  },
});

async function load(values: ServeValues, progress: Progress): Promise<WorkerEngine> {
  const onNote = (line: string) => progress.line(line), onProgress = reportDownload(progress);
  const memory = values.memory > 0 ? values.memory * 2 ** 30 : FREE_SHARE * Deno.systemMemoryInfo().available;
  const engine = new WorkerEngine({ queue: values.queue, memory, onNote, onProgress });
  try {
    for (const spec of specsOf(values)) {
      const began = performance.now(), { id } = await engine.load(spec), { base, slots, device } = engine.info(id)!;
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      progress.line(
        base === id
          ? `${id}: loaded in ${seconds} s; ${slots} texts at once, ${device}`
          : `${id}: an adapter for ${base}`,
      );
    }
    return engine;
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Drops permissions that are not needed after loading. The process can then no longer open connections; without
 * `--jobs`, it can no longer write either.
 */
export function revoke(
  names: readonly ("net" | "write" | "run" | "ffi" | "sys")[] = ["net", "write", "run", "ffi", "sys"],
): void {
  for (const name of names) Deno.permissions.revokeSync({ name });
}

/** Checks that the address is free, by listening for a moment. */
async function checkPort(hostname: string, port: number): Promise<void> {
  await listening({ host: hostname, port }, () => {
    Deno.listen({ hostname, port }).close();
    return Promise.resolve();
  });
}
/** Runs `listen`. @throws {ConfigError} if the address cannot be used */
async function listening<T>({ host, port }: Pick<ServeValues, "host" | "port">, listen: () => Promise<T>): Promise<T> {
  try {
    return await listen();
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "EADDRINUSE") {
      throw new ConfigError(`--port=${port}: another program listens on this port; --port=0 takes a free port`);
    }
    if (code === "EACCES") {
      throw new ConfigError(
        `--port=${port}: the system does not let this user listen on it; expected a port above 1023`,
      );
    }
    if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND") {
      throw new ConfigError(`--host=${host}: this machine has no such address`);
    }
    throw error;
  }
}

function announce(
  { port }: Listener,
  engine: WorkerEngine,
  { host, public_host, keys }: ServeValues,
  progress: Progress,
): void {
  const url = `http://${host === "0.0.0.0" ? "127.0.0.1" : host}:${port}`;
  const [{ id }] = engine.models(), open = isLoopback(host) && !public_host;
  const key = open ? "" : ` -H "Authorization: Bearer $KEY"`;
  progress.line(
    `Ready at ${url}/v1${
      key && `, with a key from ${keys}`
    }. Open ${url}/ in a browser for a page. Ctrl-C stops the server. An example:`,
  );
  progress.line(
    `  curl ${url}/v1/completions -H "Content-Type: application/json"${key} -d '{"model": "${id}", "prompt": "\\n", "max_tokens": 50}'`,
  );
}

async function changeKeys({ keys: path, jobs, new_key, revoke_key, list_keys }: ServeValues): Promise<void> {
  if (jobs) {
    await Deno.mkdir(jobs, { recursive: true }).catch((error) => {
      throw new DataError(`Cannot write to ${jobs}: ${reason(error)}`);
    });
  }
  const ring = await KeyRing.open(path);
  if (revoke_key) await ring.revoke(revoke_key);
  if (new_key) {
    const { id, key } = await ring.make(new_key);
    print(`${key}\n\nThis is the key ${id}; it is not shown again. Clients send it as Authorization: Bearer KEY.`);
  }
  if (list_keys) {
    if (ring.keys.length === 0) print(`${path} has no key`);
    for (const { id, name, created } of ring.keys) {
      print(`${id}  ${new Date(created * 1000).toISOString().slice(0, 10)}  ${name}`);
    }
  }
}
