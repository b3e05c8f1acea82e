/**
 * A run's folder, nanoGPT's `out_dir`:
 *
 *     run.json                what was asked for, the model's sizes, and which checkpoints are `last` and `best`
 *     vocabulary.json         what token ids mean
 *     metrics.jsonl           a line for each logged iteration and each evaluation
 *     checkpoint-000250/      model.safetensors, optimizer.safetensors, state.json
 *
 * A reader never meets half of a save. A checkpoint is written beside the others and brought to the disk first; renaming
 * run.json.new to run.json then makes it the last one, and folders that run.json does not name go after that. So whatever ends
 * the process, or fills the disk, the checkpoint before is there.
 *
 * A new run in the folder of an older one leaves that one alone until its own first checkpoint: its files are called
 * NAME.new for so long. Where NAME.new stands without a run.json.new, the process ended just after the commit, and it is
 * NAME.new that counts.
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
import { cutMetrics, type Metrics } from "./metrics.ts";
import { FORMAT, readRunJson, type RunJson } from "./run_json.ts";
import { system } from "../files/system.ts";

const RUN = "run.json", VOCABULARY = "vocabulary.json", METRICS = "metrics.jsonl";

/** What is known of a run before its first iteration; each is kept as JSON. */
export interface RunDescription {
  /** Flags by their names on the command line. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** The model's config. */
  readonly model: Readonly<Record<string, unknown>>;
  readonly vocabulary: Readonly<Record<string, unknown>>;
}

export class RunFolder {
  #last: string | undefined;
  #best: string | undefined;
  /** Of a new run that has committed nothing: its files are still called NAME.new. */
  #pending = false;
  #description: RunDescription;
  readonly #open: OpenFile | undefined;

  private constructor(readonly path: string, description: RunDescription, open?: OpenFile) {
    this.#description = description;
    this.#open = open;
  }

  /**
   * Begins a new run in `path`, which is made where it is missing.
   *
   * @param options.open how files of checkpoints are created
   * @throws {CheckpointError} when the folder cannot be written
   */
  static async create(
    path: string,
    description: RunDescription,
    { open }: { open?: OpenFile } = {},
  ): Promise<RunFolder> {
    const run = new RunFolder(path, description, open);
    try {
      await system.mkdir(path, { recursive: true });
      await run.#recover();
      run.#pending = true;
      const older = await run.#committed(); // a damaged one would stand in the way of every save
      await run.#writeRun();
      await writeJson(run.#file(VOCABULARY), description.vocabulary, open);
      await writeFile(run.#file(METRICS), [], open);
      if (!older) await run.#commit();
    } catch (error) {
      throw new CheckpointError(`Cannot write to ${path}: ${reason(error)}`);
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
    const { flags, model, last, best } = await readRunJson(file);
    const overtaken = await exists(`${path}/${VOCABULARY}.new`) && !await exists(`${file}.new`);
    const vocabulary = await readJson(`${path}/${VOCABULARY}${overtaken ? ".new" : ""}`);
    const run = new RunFolder(path, { flags, model, vocabulary }, open);
    run.#last = last;
    run.#best = best;
    return run;
  }

  get description(): RunDescription {
    return this.#description;
  }
  /** What run.json says from the next save on: a run may go on with other flags. */
  set flags(flags: RunDescription["flags"]) {
    this.#description = { ...this.#description, flags };
  }
  /** Where the metrics are now. */
  get metricsPath(): string {
    return this.#file(METRICS);
  }
  /** The name of the latest checkpoint, if there is one. */
  get last(): string | undefined {
    return this.#last;
  }
  /** The name of the checkpoint with the lowest validation loss, if an evaluation has led to one. */
  get best(): string | undefined {
    return this.#best;
  }

  /**
   * Makes `checkpoint` the last one, and the best where `best` says so. One that is neither any more is removed.
   *
   * @throws {CheckpointError} when the disk is full or refuses; the checkpoints before are untouched
   */
  async save(checkpoint: Checkpoint, { best }: { best: boolean }): Promise<void> {
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
      const kept = before.last ? `${before.last} is kept` : "this run has no earlier one";
      throw new CheckpointError(
        `Cannot save the checkpoint of iteration ${iter} in ${this.path}: ${reason(error)}; ${kept}`,
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
    const name = (which === "best" ? this.#best : undefined) ?? this.#last;
    if (!name) {
      throw new CheckpointError(`${this.path} holds no checkpoint yet: its run has not come to its first save`);
    }
    return await readCheckpoint(this.path, name);
  }

  /**
   * Makes ready to go on from iteration `iter`: metrics of what will be done again are cut, and what a run that committed
   * nothing has left is removed.
   *
   * @param options.evaluated the evaluation of `iter` itself is done and will not be done again
   */
  async resume(iter: number, { evaluated }: { evaluated: boolean }): Promise<void> {
    try {
      await this.#recover();
      await cutMetrics(this.metricsPath, iter, { evaluated });
    } catch (error) {
      throw new CheckpointError(`Cannot write to ${this.path}: ${reason(error)}`);
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

  #file(name: string): string {
    return `${this.path}/${name}${this.#pending ? ".new" : ""}`;
  }

  /** What run.json says now: the run before, until this one's first commit. */
  async #committed(): Promise<RunJson | undefined> {
    return await exists(`${this.path}/${RUN}`) ? await readRunJson(`${this.path}/${RUN}`) : undefined;
  }

  #writeRun(): Promise<void> {
    const { flags, model } = this.#description;
    const run = { format: FORMAT, flags, model, last: this.#last, best: this.#best };
    return writeJson(`${this.path}/${RUN}.new`, run, this.#open);
  }

  async #commit(): Promise<void> {
    await this.#writeRun();
    await syncDirectory(this.path);
    await system.rename(`${this.path}/${RUN}.new`, `${this.path}/${RUN}`);
    await syncDirectory(this.path);
    if (this.#pending) await this.#recover();
    this.#pending = false;
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
    const { last, best } = await this.#committed() ?? {};
    await removeOthers(this.path, [last, best]);
  }
}
