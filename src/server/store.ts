/**
 * Stores files and jobs in an SQLite database. Changes that belong together are one transaction, so a crash cannot
 * separate them. Times are seconds since 1970.
 */
import type * as Sqlite from "node:sqlite";
import { CheckpointError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { builtin } from "../files/system.ts";
import { DiskFull, isFull } from "./errors.ts";
import type { JobOrder } from "./job_messages.ts";
import type { JobRequest } from "./job_request.ts";

export interface StoredFile {
  readonly id: string;
  /** Id of the key that owns the file. */ readonly owner: string;
  readonly bytes: number;
  readonly created: number;
  /** The client's name for the file. It is never used as a path. */ readonly filename: string;
  /** The ending of its name on the disk, which gives the format: jsonl, txt, bin. */ readonly ending: string;
  readonly purpose: string;
  readonly expires: number | null;
}

export type JobStatus = "validating_files" | "queued" | "running" | "paused" | "succeeded" | "failed" | "cancelled";
/** Whether a job with this status has ended. */
export const isOver = (status: JobStatus): boolean => /^(succeeded|failed|cancelled)$/.test(status);

/** The state of a job. */
export interface JobState {
  readonly request: JobRequest;
  /** The order for its worker, set when its files have been validated. */ readonly order?: JobOrder;
  /** Hyperparameters with values for `auto`. */ readonly resolved?: Readonly<Record<string, unknown>>;
  /** Bytes of the copies of its files, which exist until the job ends; until they are made, bytes of the files. */
  readonly copies?: number;
  /** Total number of updates, and bytes of a checkpoint. */ readonly total?: number;
  readonly bytes?: number;
  /** Number of starts since the job last made progress. */ readonly starts?: number;
  /** The first step, and the first evaluation, that have no event yet. */ readonly steps: number;
  readonly evaluations: number;
  readonly tokens: number;
  /** Metrics of the last step and the last evaluation that have events. */
  readonly metrics?: Readonly<Record<string, number>>;
  readonly tuned?: string;
  readonly results: readonly string[];
  readonly error?: { readonly code: string; readonly message: string; readonly param: string | null };
}

export interface StoredJob {
  readonly id: string;
  readonly owner: string;
  readonly created: number;
  readonly finished: number | null;
  readonly status: JobStatus;
  readonly state: JobState;
}

export interface StoredEvent {
  readonly id: string;
  readonly created: number;
  readonly level: "info" | "warn" | "error";
  readonly message: string;
  readonly type: "message" | "metrics";
  readonly data: Readonly<Record<string, unknown>> | null;
}
export type NewEvent = Omit<StoredEvent, "id" | "created">;

export interface StoredCheckpoint {
  readonly id: string;
  readonly job: string;
  readonly step: number;
  readonly created: number;
  /** Id of the checkpoint's model. */ readonly model: string;
  readonly metrics: Readonly<Record<string, number>>;
  /** Whether a client asked for it. */ readonly asked: boolean;
}

/** Which part of a list to return. */
export interface Page {
  /** Id of the last item that the client has. */ readonly after?: string;
  readonly limit: number;
  readonly ascending?: boolean;
}

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  PRAGMA user_version = 1;
  CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, bytes INTEGER NOT NULL, created INTEGER NOT NULL,
    filename TEXT NOT NULL, ending TEXT NOT NULL, purpose TEXT NOT NULL, expires INTEGER
  );
  CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, created INTEGER NOT NULL, finished INTEGER,
    status TEXT NOT NULL, state TEXT NOT NULL, repeat TEXT
  );
  CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, job TEXT NOT NULL, created INTEGER NOT NULL,
    level TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL, data TEXT
  );
  CREATE INDEX IF NOT EXISTS events_of ON events (job, seq);
  CREATE TABLE IF NOT EXISTS checkpoints (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, job TEXT NOT NULL, step INTEGER NOT NULL, created INTEGER NOT NULL,
    model TEXT UNIQUE NOT NULL, metrics TEXT NOT NULL, asked INTEGER NOT NULL, UNIQUE (job, step)
  );`;

/** The SQL condition for jobs that have not ended. */
const UNFINISHED = "status NOT IN ('succeeded', 'failed', 'cancelled')";

type Value = string | number | null;
type Row = Record<string, Value>;

export const now = (): number => Math.floor(Date.now() / 1000);
/** A random id of letters and digits. It cannot be guessed, and is safe as part of a path. */
export const newId = (kind: string): string => `${kind}${crypto.getRandomValues(new Uint8Array(12)).toHex()}`;

export class Store implements Disposable {
  readonly #db: Sqlite.DatabaseSync;
  readonly #statements = new Map<string, Sqlite.StatementSync>();

  /** Opens the database at `path`. @throws {CheckpointError} if it cannot be opened or is damaged */
  constructor(readonly path: string) {
    const { DatabaseSync } = builtin<typeof Sqlite>("node:sqlite");
    try {
      this.#db = new DatabaseSync(path);
      this.#db.exec(SCHEMA);
    } catch (error) {
      throw new CheckpointError(`Cannot open ${path}: ${reason(error)}`);
    }
  }

  #statement(sql: string): Sqlite.StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#db.prepare(sql));
    return statement;
  }
  #all(sql: string, ...values: Value[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }
  /** Runs an SQL statement. @returns the number of changed rows @throws {DiskFull} if the disk is full */
  #run(sql: string, ...values: Value[]): number {
    return this.#written(() => Number(this.#statement(sql).run(...values).changes));
  }
  #written<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw isFull(error) ? new DiskFull() : error;
    }
  }
  /** Runs `body` as one transaction. @throws {DiskFull} if the disk is full */
  together<T>(body: () => T): T {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const made = body();
      this.#written(() => this.#db.exec("COMMIT"));
      return made;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK"); // a full disk has ended the transaction already
      throw error;
    }
  }
  /** One page of a table's rows with the values in `where`. @returns the rows, and whether more follow */
  #page(table: string, where: Record<string, Value>, { after, limit, ascending = false }: Page): [Row[], boolean] {
    const names = Object.keys(where), conditions = names.map((name) => `${name} = ?`), values = Object.values(where);
    if (after !== undefined) {
      conditions.push(`seq ${ascending ? ">" : "<"} (SELECT seq FROM ${table} WHERE id = ?)`);
      values.push(after);
    }
    const order = ascending ? "ASC" : "DESC";
    const sql = `SELECT * FROM ${table} WHERE ${conditions.join(" AND ")} ORDER BY seq ${order} LIMIT ?`;
    const rows = this.#all(sql, ...values, limit + 1);
    return [rows.slice(0, limit), rows.length > limit];
  }

  addFile({ id, owner, bytes, created, filename, ending, purpose, expires }: StoredFile): void {
    const names = "id, owner, bytes, created, filename, ending, purpose, expires";
    this.#run(
      `INSERT INTO files (${names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      ...[id, owner, bytes, created, filename, ending, purpose, expires],
    );
  }
  file(id: string, owner?: string): StoredFile | undefined {
    const [row] = this.#all("SELECT * FROM files WHERE id = ?", id);
    return row && (owner === undefined || row.owner === owner) ? fileOf(row) : undefined;
  }
  files(owner: string, page: Page, purpose?: string): [StoredFile[], boolean] {
    const [rows, more] = this.#page("files", { owner, ...purpose !== undefined && { purpose } }, page);
    return [rows.map(fileOf), more];
  }
  allFiles(): StoredFile[] {
    return this.#all("SELECT * FROM files").map(fileOf);
  }
  removeFile(id: string): void {
    this.#run("DELETE FROM files WHERE id = ?", id);
  }
  /** Bytes of a key's files, and of the copies of files that its unfinished jobs need. */
  usedBy(owner: string): number {
    const [{ files, copies }] = this.#all(
      `SELECT (SELECT TOTAL(bytes) FROM files WHERE owner = ?1) AS files,
         (SELECT TOTAL(state ->> 'copies') FROM jobs WHERE owner = ?1 AND ${UNFINISHED}) AS copies`,
      owner,
    );
    return Number(files) + Number(copies);
  }

  /** Adds a job. @param repeat the mark that identifies repeated requests */
  addJob({ id, owner, created, status, state }: StoredJob, repeat: string | null): void {
    this.#run(
      "INSERT INTO jobs (id, owner, created, status, state, repeat) VALUES (?, ?, ?, ?, ?, ?)",
      ...[id, owner, created, status, JSON.stringify(state), repeat],
    );
  }
  job(id: string, owner?: string): StoredJob | undefined {
    const [row] = this.#all("SELECT * FROM jobs WHERE id = ?", id);
    return row && (owner === undefined || row.owner === owner) ? jobOf(row) : undefined;
  }
  /** The newest job of a key with this mark that is at most `seconds` old. */
  repeated(owner: string, repeat: string, seconds: number): StoredJob | undefined {
    const sql = "SELECT * FROM jobs WHERE owner = ? AND repeat = ? AND created >= ? ORDER BY seq DESC LIMIT 1";
    const [row] = this.#all(sql, owner, repeat, now() - seconds);
    return row && jobOf(row);
  }
  jobs(owner: string, page: Page): [StoredJob[], boolean] {
    const [rows, more] = this.#page("jobs", { owner }, page);
    return [rows.map(jobOf), more];
  }
  /** Jobs with one of these statuses, oldest first. */
  jobsIn(...statuses: JobStatus[]): StoredJob[] {
    const marks = statuses.map(() => "?").join(", ");
    return this.#all(`SELECT * FROM jobs WHERE status IN (${marks}) ORDER BY seq`, ...statuses).map(jobOf);
  }
  /** Number of a key's jobs that are unfinished or still have a model. */
  countJobs(owner: string): number {
    const [{ count }] = this.#all(
      `SELECT COUNT(*) AS count FROM jobs WHERE owner = ? AND (${UNFINISHED} OR id IN (SELECT job FROM checkpoints))`,
      owner,
    );
    return Number(count);
  }
  /** Changes a job and adds events. */
  change(
    id: string,
    change: Partial<JobState> & { readonly status?: JobStatus },
    events: readonly NewEvent[] = [],
  ): void {
    const { status, ...more } = change, job = this.job(id)!, next = status ?? job.status;
    const state = JSON.stringify({ ...job.state, ...more }), finished = isOver(next) ? job.finished ?? now() : null;
    this.#run("UPDATE jobs SET status = ?, finished = ?, state = ? WHERE id = ?", next, finished, state, id);
    for (const { level, type, message, data } of events) {
      this.#run(
        "INSERT INTO events (id, job, created, level, type, message, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        ...[newId("ftevent-"), id, now(), level, type, message, data && JSON.stringify(data)],
      );
    }
  }
  events(job: string, page: Page): [StoredEvent[], boolean] {
    const [rows, more] = this.#page("events", { job }, page);
    return [
      rows.map((row) => ({ ...row, data: row.data && JSON.parse(row.data as string) } as unknown as StoredEvent)),
      more,
    ];
  }

  addCheckpoint({ id, job, step, created, model, metrics, asked }: StoredCheckpoint): void {
    const names = "id, job, step, created, model, metrics, asked";
    const sql = `INSERT INTO checkpoints (${names}) VALUES (?, ?, ?, ?, ?, ?, ?)`;
    this.#run(sql, id, job, step, created, model, JSON.stringify(metrics), asked ? 1 : 0);
  }
  checkpoints(job: string, page: Page): [StoredCheckpoint[], boolean] {
    const [rows, more] = this.#page("checkpoints", { job }, page);
    return [rows.map(checkpointOf), more];
  }
  /** All checkpoints of all jobs: each is a model. */
  models(): StoredCheckpoint[] {
    return this.#all("SELECT * FROM checkpoints ORDER BY seq").map(checkpointOf);
  }
  /** Removes the checkpoint with this model id. */
  removeCheckpoint(model: string): void {
    this.#run("DELETE FROM checkpoints WHERE model = ?", model);
  }
  renameModel(model: string, name: string): void {
    this.#run("UPDATE checkpoints SET model = ? WHERE model = ?", name, model);
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

const fileOf = ({ seq: _, ...row }: Row): StoredFile => row as unknown as StoredFile;
const jobOf = ({ seq: _, repeat: __, state, ...row }: Row): StoredJob =>
  ({ ...row, state: JSON.parse(state as string) }) as unknown as StoredJob;
const checkpointOf = ({ seq: _, metrics, asked, ...row }: Row): StoredCheckpoint =>
  ({ ...row, metrics: JSON.parse(metrics as string), asked: asked === 1 }) as unknown as StoredCheckpoint;
