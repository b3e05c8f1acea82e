/**
 * Lock files, which allow only one writer at a time. A lock file contains the id of the process that holds the lock, and
 * the time when the process took it.
 *
 * If possible, the file is locked with the operating system's lock (flock, LockFileEx), which is released when the
 * process ends in any way. If the runtime has no such call (Node) or the file system does not support it, the holder
 * updates the file's modification time every ten seconds, and a lock file that has not been updated for thirty seconds
 * is ignored.
 */
import { CheckpointError } from "../errors.ts";
import { exists, readJson, syncDirectory, writeAll } from "./files.ts";
import { reason } from "./reason.ts";
import { system, type SystemFile } from "./system.ts";

const BEAT = 10_000, DEAD = 30_000;
/**
 * After a process has written its entry into a lock file, it waits for this many milliseconds and reads the file again.
 * If two processes take over an abandoned lock at once, the process that wrote later has the lock.
 */
const SETTLE = 100;

/** A unique name. (Browsers have crypto.randomUUID only on pages from https or localhost.) */
const unique = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join("-");

interface Holder {
  readonly id?: unknown;
  readonly process?: unknown;
  readonly since?: unknown;
  /** Whether the holder has the operating system's lock. Otherwise the file's age tells whether the holder is alive. */
  readonly system?: unknown;
}

/** A lock that this process holds. */
export class Lock implements Disposable {
  readonly #file: SystemFile;
  readonly #beat: ReturnType<typeof setInterval>;

  /** @param path path of the lock file; set this field when the file's folder is renamed */
  private constructor(public path: string, file: SystemFile) {
    this.#file = file;
    this.#beat = setInterval(() => system.utime(this.path, new Date(), new Date()).catch(() => {}), BEAT);
    // A script that forgets to release the lock can still end. In a browser, the timer is a number without `unref`.
    this.#beat.unref?.();
  }

  /**
   * Locks `target` for writing.
   *
   * @param target path of a folder, in which the lock file is called `.lock`; with `beside`, any path, and the lock file
   * is `TARGET.lock`
   * @param options.system whether to use the operating system's lock if possible. Default: true
   * @throws {CheckpointError} when another process holds the lock; the message names the process
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
        if (locked && !await isAt(path, file)) { // the lock's last holder removed the file after it was opened here
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

  /** Releases the lock. */
  [Symbol.dispose](): void {
    clearInterval(this.#beat);
    try {
      system.removeSync(this.path); // before the lock is released, because then the file may belong to another process
    } catch {
      // The folder may have been removed already. Otherwise the lock file remains, which does no harm.
    }
    this.#file.close();
  }
}

/**
 * Creates a folder atomically: it is written under another name, synced to the disk, and renamed to `path`.
 *
 * @param path path that does not exist, or is an empty folder
 * @param write writes the contents into a folder; it is called with the path of this folder
 * @throws {CheckpointError} when `path` exists and is not an empty folder, or another process creates it
 * @throws the error of `write` if it fails; the incomplete folder is removed
 */
export async function createFolder(path: string, write: (partial: string) => Promise<void>): Promise<void> {
  const target = path.replace(/(?<=.)[/\\]+$/, ""), partial = `${target}.${unique()}.part`;
  using _ = await Lock.take(target, { beside: true });
  if (await exists(target)) {
    const contents = await Array.fromAsync(system.readDir(target)).catch(() => [undefined]); // the target is a file
    if (contents.length > 0) {
      throw new CheckpointError(`${target} already exists and is not changed; name a new folder`);
    }
  }
  try {
    await system.mkdir(partial, { recursive: true });
    await write(partial);
    await syncDirectory(partial);
    if (await exists(target)) await system.remove(target); // throws unless it is empty
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
