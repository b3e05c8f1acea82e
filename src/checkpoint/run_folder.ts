/**
 * A run's folder, nanoGPT's `out_dir`:
 *
 *     run.json                what was asked for, the model's sizes, a checksum of the data, and which checkpoints are `last` and `best`
 *     vocabulary.json         what token ids mean
 *     metrics.jsonl           a line for each logged iteration and each evaluation
 *     checkpoint-000250/      model.safetensors, optimizer.safetensors, state.json
 *
 * A run that trains an adapter has PEFT's adapter_config.json and adapter_model.safetensors in place of model.safetensors, and
 * run.json names the base.
 *
 * A reader never meets half of a save. A checkpoint is written beside the others and brought to the disk first; renaming
 * run.json.new to run.json then makes it the last one, and folders that run.json does not name go after that. So whatever ends
 * the process, or fills the disk, the checkpoint before is there.
 *
 * One process writes at a time: it holds the lock file `.lock` in the folder. Readers need none, and look at run.json again when a
 * checkpoint has gone that it named before.
 *
 * A new run in the folder of an older one with checkpoints renames that folder to PATH.old-1 and begins an empty one. (Version
 * 0.1.0 wrote NAME.new into the older run's folder and renamed them at its first save. Where NAME.new stands without a
 * run.json.new, that process ended just after its commit, and it is NAME.new that counts.)
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

/** How often a reader looks again while checkpoints go. */
const ATTEMPTS = 5;
const RUN = "run.json", VOCABULARY = "vocabulary.json", METRICS = "metrics.jsonl";

/** What is known of a run before its first iteration; each is kept as JSON. */
export interface RunDescription {
  /** Flags by their names on the command line. */ readonly flags: Readonly<Record<string, unknown>>;
  /** The model's config. */ readonly model: Readonly<Record<string, unknown>>;
  /** What the adapter stands on that the run trains. */ readonly base?: RunBase;
  /** What the run's policy is compared with. */ readonly reference?: RunBase;
  /** As the tokenizer's toJSON gives it. */ readonly vocabulary: Readonly<Record<string, unknown>>;
}

/** A run's folder: run.json, vocabulary.json, metrics.jsonl and checkpoints. One process writes it at a time. */
export class RunFolder implements Disposable {
  #last: string | undefined;
  #best: string | undefined;
  #renamed: string | undefined;
  #description: RunDescription;
  #lock: Lock | undefined;
  readonly #open: OpenFile | undefined;
  /** What run.json says of the data, JSON of whoever trains; undefined where it says nothing. It is written with the next save. */
  data: unknown;

  private constructor(readonly path: string, description: RunDescription, open?: OpenFile) {
    this.#description = description;
    this.#open = open;
  }

  /**
   * Begins a new run in `path`, which is made where it is missing. An older run in it that has a checkpoint is renamed:
   * {@linkcode RunFolder.renamed} says to what.
   *
   * @param options.open how files of checkpoints are created
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
      const renamed = run.#renamed ? `; the run that was there is in ${run.#renamed}` : "";
      throw new CheckpointError(`Cannot write to ${path}: ${reason(error)}${renamed}`);
    }
    return run;
  }

  /**
   * Opens the folder of a run, and writes nothing: {@linkcode RunFolder.resume} is what makes it go on.
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
   * Keeps other writers out until the folder is disposed, and sees which checkpoints there are by now: another process may have saved. Whatever
   * writes does so by itself.
   *
   * @throws {CheckpointError} when another process writes the folder, naming it
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

  /** Lets others write the folder; what is logged or saved afterwards takes the lock again. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
    this.#lock = undefined;
  }

  /** What the run was asked for, and what its tokens mean. */ get description(): RunDescription {
    return this.#description;
  }
  /** What run.json says from the next save on: a run may go on with other flags. */
  set flags(flags: RunDescription["flags"]) {
    this.#description = { ...this.#description, flags };
  }
  /** What an older run in the folder is called now, where this one has begun in its place. */
  get renamed(): string | undefined {
    return this.#renamed;
  }
  /** Where the metrics are. */
  get metricsPath(): string {
    return `${this.path}/${METRICS}`;
  }
  /** The name of the latest checkpoint, if there is one. */
  get last(): string | undefined {
    return this.#last;
  }
  /** The name of the checkpoint with the lowest validation loss, if an evaluation has led to one. */
  get best(): string | undefined {
    return this.#best;
  }

  /** From the next save on no checkpoint is the best, until one is saved as that: losses before are not comparable. */
  forgetBest(): void {
    this.#best = undefined;
  }

  /** What a message says of earlier work: only of a checkpoint that is there. */
  async kept(): Promise<string> {
    const there = this.#last && await exists(`${this.path}/${this.#last}`).catch(() => false);
    return there
      ? `${this.#last} is kept`
      : this.#last
      ? `${this.#last} has been removed`
      : "no checkpoint was saved yet";
  }

  /**
   * Makes `checkpoint` the last one, and the best where `best` says so. One that is neither any more is removed.
   *
   * @throws {CheckpointError} when the disk is full or refuses; the checkpoints before are untouched
   */
  async save(checkpoint: Checkpoint, { best }: { best: boolean }): Promise<void> {
    await this.lock();
    const { iter } = checkpoint, before = { last: this.#last, best: this.#best };
    let name: string | undefined;
    try {
      await this.#removeUnnamed(); // what an interrupted save has left takes room
      name = await freeName(this.path, iter);
      await writeCheckpoint(`${this.path}/${name}`, checkpoint, this.#open);
      this.#last = name;
      if (best) this.#best = name;
      await this.#commit();
    } catch (error) {
      this.#last = before.last;
      this.#best = before.best;
      if (name) await this.#removeUnnamed().catch(() => {}); // the next save tries again
      throw new CheckpointError(
        `Cannot save the checkpoint of iteration ${iter} in ${this.path}: ${reason(error)}; ${await this.kept()}`,
      );
    }
    await this.#removeUnnamed().catch(() => {}); // the checkpoint is safe; the next save tries again
  }

  /**
   * The last checkpoint, or the best: where no evaluation has led to one, that is the last too.
   *
   * @throws {CheckpointError} when there is none, or its files are damaged
   */
  async checkpoint(which: "last" | "best"): Promise<SavedCheckpoint> {
    return await this.read(which, (checkpoint) => Promise.resolve(checkpoint));
  }

  /**
   * Hands {@linkcode RunFolder.checkpoint} to `body`, which opens its files. A run that is going on removes checkpoints: where `body`
   * throws and run.json names another one by then, `body` gets that.
   *
   * @throws {CheckpointError} when there is none, or its files are damaged
   */
  async read<T>(which: "last" | "best", body: (checkpoint: SavedCheckpoint) => Promise<T>): Promise<T> {
    for (let attempt = 1;; attempt++) {
      const name = this.#named(which);
      if (!name) {
        throw new CheckpointError(`${this.path} holds no checkpoint yet: its run has not come to its first save`);
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
   * Makes ready to go on from iteration `iter`: metrics of what will be done again are cut, and what a run that committed
   * nothing has left is removed.
   *
   * @param options.evaluated the evaluation of `iter` itself is done and will not be done again
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

  /** Which checkpoints run.json names by now. */
  async #refresh(): Promise<void> {
    const { last, best } = await readRunJson(`${this.path}/${RUN}`);
    this.#last = last;
    this.#best = best;
  }

  /** Renames the folder with the run that is in it, and begins an empty one that this process holds too. */
  async #setAside(): Promise<void> {
    const path = this.path.replace(/(?<=.)[/\\]+$/, "");
    let renamed = `${path}.old-1`;
    for (let i = 2; await exists(renamed); i++) renamed = `${path}.old-${i}`;
    const lock = this.#lock!;
    try {
      await system.rename(path, renamed);
    } catch {
      lock[Symbol.dispose](); // Windows renames no folder in which a file is open; another writer would have one open, too
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

  /** Finishes what was committed, and removes what was not. */
  async #recover(): Promise<void> {
    const uncommitted = await exists(`${this.path}/${RUN}.new`);
    for (const name of [VOCABULARY, METRICS]) {
      const file = `${this.path}/${name}`;
      if (!await exists(`${file}.new`)) continue;
      await (uncommitted ? system.remove(`${file}.new`) : system.rename(`${file}.new`, file));
    }
    if (uncommitted) await system.remove(`${this.path}/${RUN}.new`); // last: while it is there, the others do not count
  }

  /** Removes checkpoints that run.json does not name. */
  async #removeUnnamed(): Promise<void> {
    const { last, best } = await readRunJson(`${this.path}/${RUN}`);
    await removeOthers(this.path, [last, best]);
  }
}
