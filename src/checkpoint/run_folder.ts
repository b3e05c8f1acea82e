/**
 * A run's folder, nanoGPT's `out_dir`:
 *
 *     run.json                flags, model's config, checksum of the data, names of the `last` and `best` checkpoints
 *     vocabulary.json         the tokenizer
 *     metrics.jsonl           a line for each logged iteration and each evaluation
 *     checkpoint-000250/      model.safetensors, optimizer.safetensors, state.json
 *
 * A run that trains an adapter has PEFT's adapter_config.json and adapter_model.safetensors in place of
 * model.safetensors, and run.json names the base model.
 *
 * A reader never sees half of a save. A checkpoint is first written to a new folder and synced to the disk. Renaming
 * run.json.new to run.json then commits it as the last checkpoint. Only after that are the folders removed that
 * run.json no longer names. So if the process ends or the disk is full, the previous checkpoint is still there.
 *
 * Only one process at a time writes: it holds the lock file `.lock` in the folder. Readers need no lock. If a
 * checkpoint is removed before a reader has opened it, the reader looks up the current one in run.json again.
 *
 * If a new run starts in a folder that already has a run with checkpoints, the folder is renamed to PATH.old-1 and a
 * new one is created. (Version 0.1.0 wrote vocabulary.json.new and metrics.jsonl.new into the older run's folder and
 * renamed them at its first save. If such a file exists without run.json.new, that process ended right after its
 * commit: the .new file is valid and replaces the older one.)
 */
import { CheckpointError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import {
  type Checkpoint,
  freeName,
  readCheckpoint,
  removeOthers,
  type SavedCheckpoint,
  writeCheckpoint,
} from "./checkpoint_folder.ts";
import { exists, type OpenFile, readJson, syncDirectory, writeFile, writeJson } from "../files/files.ts";
import { Lock } from "../files/locks.ts";
import { cutMetrics, type Metrics } from "./metrics.ts";
import { FORMAT, readRunJson, type RunBase } from "./run_json.ts";
import { system } from "../files/system.ts";

/** How often a reader tries again if checkpoints are removed while it reads. */
const ATTEMPTS = 5;
const RUN = "run.json", VOCABULARY = "vocabulary.json", METRICS = "metrics.jsonl";

/** What is known about a run before its first iteration. Each field is saved as JSON. */
export interface RunDescription {
  /** Flags by their names on the command line. */ readonly flags: Readonly<Record<string, unknown>>;
  /** The model's config. */ readonly model: Readonly<Record<string, unknown>>;
  /** The base model of the adapter that the run trains. */ readonly base?: RunBase;
  /** The reference model that the run's policy is compared with. */ readonly reference?: RunBase;
  /** The tokenizer, as returned by its toJSON. */ readonly vocabulary: Readonly<Record<string, unknown>>;
}

/** A run's folder: run.json, vocabulary.json, metrics.jsonl and checkpoints. One process writes it at a time. */
export class RunFolder implements Disposable {
  #last: string | undefined;
  #best: string | undefined;
  #renamed: string | undefined;
  #description: RunDescription;
  #lock: Lock | undefined;
  readonly #open: OpenFile | undefined;
  /**
   * The trainer's description of the data, as JSON, in run.json; undefined if there is none. Changes are saved with the
   * next save.
   */
  data: unknown;

  private constructor(readonly path: string, description: RunDescription, open?: OpenFile) {
    this.#description = description;
    this.#open = open;
  }

  /**
   * Starts a new run in the folder `path`, which is created if it does not exist. If it has an older run with a
   * checkpoint, that folder is renamed first; {@linkcode RunFolder.renamed} is its new path.
   *
   * @param options.open function that creates the files of checkpoints
   * @throws {CheckpointError} when the folder cannot be written, or another process writes it
   */
  static async create(
    path: string,
    description: RunDescription,
    { open }: { open?: OpenFile } = {},
  ): Promise<RunFolder> {
    const run = new RunFolder(path, description, open);
    try {
      await system.mkdir(path, { recursive: true });
      run.#lock = await Lock.take(path);
      await run.#recover();
      if (await exists(`${path}/${RUN}`) && (await readRunJson(`${path}/${RUN}`)).last) await run.#setAside();
      await writeJson(`${path}/${VOCABULARY}`, description.vocabulary, open);
      await writeFile(run.metricsPath, [], open);
      await run.#commit();
    } catch (error) {
      run[Symbol.dispose]();
      const renamed = run.#renamed ? `; the older run is now in ${run.#renamed}` : "";
      throw new CheckpointError(`Cannot write to ${path}: ${reason(error)}${renamed}`);
    }
    return run;
  }

  /**
   * Opens the folder of a run for reading. Call {@linkcode RunFolder.resume} to continue the run.
   *
   * @throws {CheckpointError} when there is no run in `path`, or its files are damaged
   */
  static async open(path: string, { open }: { open?: OpenFile } = {}): Promise<RunFolder> {
    const file = `${path}/${RUN}`;
    if (!await exists(file)) {
      throw new CheckpointError(
        `No run in ${path}: ${await exists(path) ? `it has no ${RUN}` : "there is no such folder"}`,
      );
    }
    const { flags, model, base, reference, data, last, best } = await readRunJson(file);
    const overtaken = await exists(`${path}/${VOCABULARY}.new`) && !await exists(`${file}.new`);
    const vocabulary = await readJson(`${path}/${VOCABULARY}${overtaken ? ".new" : ""}`);
    const run = new RunFolder(
      path,
      { flags, model, ...base && { base }, ...reference && { reference }, vocabulary },
      open,
    );
    run.data = data;
    run.#last = last;
    run.#best = best;
    return run;
  }

  /**
   * Locks the folder against other writers until this object is disposed, and reads run.json again, because another
   * process may have saved a checkpoint. `save` and `resume` call it themselves.
   *
   * @throws {CheckpointError} when another process writes the folder; the message names the process
   */
  async lock(): Promise<void> {
    if (this.#lock) return;
    try {
      this.#lock = await Lock.take(this.path);
      await this.#recover();
      await this.#refresh();
    } catch (error) {
      this[Symbol.dispose]();
      throw error instanceof CheckpointError ? error : this.#cannotWrite(error);
    }
  }

  /** Releases the lock. A later save takes it again. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
    this.#lock = undefined;
  }

  /** The run's flags, model and tokenizer. */ get description(): RunDescription {
    return this.#description;
  }
  /** Replaces the flags in run.json with the next save, because a run can be resumed with other flags. */
  set flags(flags: RunDescription["flags"]) {
    this.#description = { ...this.#description, flags };
  }
  /**
   * Path to which the folder of an older run was renamed by {@linkcode RunFolder.create}; undefined if there was none.
   */
  get renamed(): string | undefined {
    return this.#renamed;
  }
  /** Path of metrics.jsonl. */
  get metricsPath(): string {
    return `${this.path}/${METRICS}`;
  }
  /** Name of the latest checkpoint, if there is one. */
  get last(): string | undefined {
    return this.#last;
  }
  /** Name of the checkpoint with the lowest validation loss, if one was saved as the best. */
  get best(): string | undefined {
    return this.#best;
  }

  /**
   * Clears the best checkpoint with the next save, until a new one is saved as the best. For use when later losses are
   * not comparable with earlier ones.
   */
  forgetBest(): void {
    this.#best = undefined;
  }

  /** For error messages: says whether the last checkpoint still exists. */
  async kept(): Promise<string> {
    const there = this.#last && await exists(`${this.path}/${this.#last}`).catch(() => false);
    return there
      ? `${this.#last} is still there`
      : this.#last
      ? `${this.#last} has been removed`
      : "no checkpoint was saved yet";
  }

  /**
   * Saves a checkpoint as the last one, and with `best` also as the best. Then removes checkpoints that are neither.
   *
   * @throws {CheckpointError} when the checkpoint cannot be written; earlier checkpoints are unchanged
   */
  async save(checkpoint: Checkpoint, { best }: { best: boolean }): Promise<void> {
    await this.lock();
    const { iter } = checkpoint, before = { last: this.#last, best: this.#best };
    let name: string | undefined;
    try {
      await this.#removeUnnamed(); // free the space of an interrupted save
      name = await freeName(this.path, iter);
      await writeCheckpoint(`${this.path}/${name}`, checkpoint, this.#open);
      this.#last = name;
      if (best) this.#best = name;
      await this.#commit();
    } catch (error) {
      this.#last = before.last;
      this.#best = before.best;
      if (name) await this.#removeUnnamed().catch(() => {}); // if it fails, the next save tries again
      throw new CheckpointError(
        `Cannot save the checkpoint of iteration ${iter} in ${this.path}: ${reason(error)}; ${await this.kept()}`,
      );
    }
    await this.#removeUnnamed().catch(() => {}); // the checkpoint is saved; if this fails, the next save tries again
  }

  /**
   * The last or the best checkpoint. If none was saved as the best, `best` is the last one.
   *
   * @throws {CheckpointError} when there is no checkpoint, or its files are damaged
   */
  async checkpoint(which: "last" | "best"): Promise<SavedCheckpoint> {
    return await this.read(which, (checkpoint) => Promise.resolve(checkpoint));
  }

  /**
   * Passes the last or the best checkpoint to `body`, which opens its files. A run in progress removes old checkpoints,
   * so if `body` throws and run.json now names another checkpoint, `body` is called again with that one.
   *
   * @throws {CheckpointError} when there is no checkpoint, or its files are damaged
   */
  async read<T>(which: "last" | "best", body: (checkpoint: SavedCheckpoint) => Promise<T>): Promise<T> {
    for (let attempt = 1;; attempt++) {
      const name = this.#named(which);
      if (!name) {
        throw new CheckpointError(`${this.path} has no checkpoint yet: its run has not reached its first save`);
      }
      try {
        return await body(await readCheckpoint(this.path, name));
      } catch (error) {
        if (attempt === ATTEMPTS || this.#lock) throw error;
        await this.#refresh();
        if (this.#named(which) === name) throw error;
      }
    }
  }

  /**
   * Prepares the folder to continue from iteration `iter`: locks it, completes or undoes an interrupted commit, and
   * removes the metrics of iterations that will be repeated.
   *
   * @param options.evaluated whether the evaluation of `iter` was made and will not be repeated
   */
  async resume(iter: number, { evaluated }: { evaluated: boolean }): Promise<void> {
    await this.lock();
    try {
      await cutMetrics(this.metricsPath, iter, { evaluated });
    } catch (error) {
      throw this.#cannotWrite(error);
    }
  }

  /** Adds a line to the metrics. */
  async log(metrics: Metrics): Promise<void> {
    try {
      await system.writeTextFile(this.metricsPath, JSON.stringify(metrics) + "\n", { append: true });
    } catch (error) {
      throw new CheckpointError(`Cannot write ${this.metricsPath}: ${reason(error)}`);
    }
  }

  #cannotWrite(error: unknown): CheckpointError {
    return new CheckpointError(`Cannot write to ${this.path}: ${reason(error)}`);
  }

  #named(which: "last" | "best"): string | undefined {
    return (which === "best" ? this.#best : undefined) ?? this.#last;
  }

  /** Reads the names of the checkpoints from run.json again. */
  async #refresh(): Promise<void> {
    const { last, best } = await readRunJson(`${this.path}/${RUN}`);
    this.#last = last;
    this.#best = best;
  }

  /** Renames the folder with its run, and creates and locks an empty folder in its place. */
  async #setAside(): Promise<void> {
    const path = this.path.replace(/(?<=.)[/\\]+$/, "");
    let renamed = `${path}.old-1`;
    for (let i = 2; await exists(renamed); i++) renamed = `${path}.old-${i}`;
    const lock = this.#lock!;
    try {
      await system.rename(path, renamed);
    } catch {
      // Windows does not rename a folder with an open file, here the lock. Another writer would have it open, so it
      // still blocks.
      lock[Symbol.dispose]();
      this.#lock = undefined;
      await system.rename(path, renamed).catch((error) => {
        throw new CheckpointError(
          `the run in it cannot be renamed to ${renamed}: ${reason(error)}; name another folder`,
        );
      });
    }
    this.#renamed = renamed;
    lock.path = `${renamed}/.lock`;
    await system.mkdir(path);
    this.#lock = await Lock.take(path);
    lock[Symbol.dispose]();
    await syncDirectory(path.replace(/[^/\\]*$/, "") || ".");
  }

  async #commit(): Promise<void> {
    const { flags, model, base, reference } = this.#description, { data } = this;
    const run = { format: FORMAT, flags, model, base, reference, data, last: this.#last, best: this.#best };
    await writeJson(`${this.path}/${RUN}.new`, run, this.#open);
    await syncDirectory(this.path);
    await system.rename(`${this.path}/${RUN}.new`, `${this.path}/${RUN}`);
    await syncDirectory(this.path);
  }

  /** Completes an interrupted commit, or removes its files if it did not take effect. */
  async #recover(): Promise<void> {
    const uncommitted = await exists(`${this.path}/${RUN}.new`);
    for (const name of [VOCABULARY, METRICS]) {
      const file = `${this.path}/${name}`;
      if (!await exists(`${file}.new`)) continue;
      await (uncommitted ? system.remove(`${file}.new`) : system.rename(`${file}.new`, file));
    }
    // run.json.new is removed last, because it marks the other .new files as uncommitted.
    if (uncommitted) await system.remove(`${this.path}/${RUN}.new`);
  }

  /** Removes checkpoints that run.json does not name. */
  async #removeUnnamed(): Promise<void> {
    const { last, best } = await readRunJson(`${this.path}/${RUN}`);
    await removeOthers(this.path, [last, best]);
  }
}
