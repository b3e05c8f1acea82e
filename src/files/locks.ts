/**
 * One writer at a time: a lock file that names the process that writes, and since when.
 *
 * The system's lock on the file counts (flock, LockFileEx): it goes with the process, however that ends. Where the runtime has no
 * such call (Node) or the file system refuses it, the holder touches the file every ten seconds, and a file that nobody has
 * touched for thirty seconds does not count.
 */
import { CheckpointError } from "../errors.ts";
import { exists, readJson, syncDirectory, writeAll } from "./files.ts";
import { reason } from "./reason.ts";
import { system, type SystemFile } from "./system.ts";

const BEAT = 10_000, DEAD = 30_000;
/** Milliseconds after which one of two that have taken the same dead file sees the other's entry in it. */
const SETTLE = 100;

/** A name that nobody else has. (A browser has randomUUID only where a page comes over https or from this machine.) */
const unique = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join("-");

interface Holder {
  readonly id?: unknown;
  readonly process?: unknown;
  readonly since?: unknown;
  /** Whether the system's lock says that the holder lives; else the file's age does. */
  readonly system?: unknown;
}

export class Lock implements Disposable {
  readonly #file: SystemFile;
  readonly #beat: ReturnType<typeof setInterval>;

  /** @param path of the lock file; whoever renames its folder says so here */
  private constructor(public path: string, file: SystemFile) {
    this.#file = file;
    this.#beat = setInterval(() => system.utime(this.path, new Date(), new Date()).catch(() => {}), BEAT);
    this.#beat.unref?.(); // a script that forgets to release still ends; a browser has numbers here
  }

  /**
   * Takes `target` for writing: a folder, in which `.lock` is made, or with `beside` anything, with `TARGET.lock` beside it.
   *
   * @param options.system whether to ask for the system's lock
   * @throws {CheckpointError} when another holds it; the message names the process
   */
  static async take(target: string, { beside = false, system: asked = true } = {}): Promise<Lock> {
    const path = beside ? `${target.replace(/(?<=.)[/\\]+$/, "")}.lock` : `${target}/.lock`;
    for (;;) {
      const file = await open(path);
      try {
        const locked = asked ? await file.tryLock?.(true).catch(() => undefined) : undefined;
        const holder: Holder | undefined = await readJson(path).catch(() => undefined), { mtime } = file.statSync();
        const alive = holder && Date.now() - Number(mtime) < DEAD && !(locked && holder.system);
        if (locked === false || alive) throw inUse(target, holder);
        if (locked && !await isAt(path, file)) { // its holder has removed it since it was opened
          file.close();
          continue;
        }
        const own = {
          id: unique(),
          process: system.pid,
          since: new Date().toISOString(),
          system: locked === true,
        };
        file.truncateSync();
        await writeAll(file, new TextEncoder().encode(JSON.stringify(own) + "\n"));
        if (!locked) {
          await new Promise((resolve) => setTimeout(resolve, SETTLE));
          const now: Holder = await readJson(path);
          if (now.id !== own.id) throw inUse(target, now);
        }
        return new Lock(path, file);
      } catch (error) {
        file.close();
        throw error;
      }
    }
  }

  /** Gives the target free. */
  [Symbol.dispose](): void {
    clearInterval(this.#beat);
    try {
      system.removeSync(this.path); // while the lock is held: afterwards the file may be another's
    } catch {
      // The whole folder may be gone; an old lock file does no harm.
    }
    this.#file.close();
  }
}

/**
 * Makes a folder that is found whole or not at all: it has another name while it is written, and is on the disk then. One
 * process at a time makes it.
 *
 * @param path which must not be there, or be an empty folder
 * @param write fills the folder of the name that it is given
 * @throws {CheckpointError} when something is there, or another process makes it; and what `write` throws. Nothing is left then.
 */
export async function createFolder(path: string, write: (partial: string) => Promise<void>): Promise<void> {
  const target = path.replace(/(?<=.)[/\\]+$/, ""), partial = `${target}.${unique()}.part`;
  using _ = await Lock.take(target, { beside: true });
  if (await exists(target)) {
    const contents = await Array.fromAsync(system.readDir(target)).catch(() => [undefined]); // a file
    if (contents.length > 0) {
      throw new CheckpointError(`${target} is there already, and is left as it is: name a new folder`);
    }
  }
  try {
    await system.mkdir(partial, { recursive: true });
    await write(partial);
    await syncDirectory(partial);
    if (await exists(target)) await system.remove(target); // empty, or this throws
    await system.rename(partial, target);
    await syncDirectory(target.replace(/[^/\\]*$/, "") || ".");
  } catch (error) {
    await system.remove(partial, { recursive: true }).catch(() => {});
    if (error instanceof CheckpointError && error.message.includes(partial)) {
      throw new CheckpointError(error.message.replaceAll(partial, target));
    }
    throw error;
  }
}

async function open(path: string): Promise<SystemFile> {
  try {
    const folder = path.replace(/[^/\\]*$/, "");
    if (folder) await system.mkdir(folder, { recursive: true });
    return await system.open(path, { read: true, write: true, create: true });
  } catch (error) {
    throw new CheckpointError(`Cannot write ${path}: ${reason(error)}`);
  }
}

async function isAt(path: string, file: SystemFile): Promise<boolean> {
  const there = await system.stat(path).catch(() => undefined);
  return there?.ino === file.statSync().ino;
}

function inUse(target: string, { process, since }: Holder = {}): CheckpointError {
  const time = typeof since === "string" ? ` since ${since.slice(0, 19).replace("T", " ")} UTC` : "";
  return new CheckpointError(
    `${target} is in use by ${Number.isInteger(process) ? `process ${process}` : "another process"}${time}`,
  );
}
