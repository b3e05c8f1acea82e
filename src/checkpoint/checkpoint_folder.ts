/** The checkpoint folders within a run's folder: their names, their contents, and the removal of old ones. */
import { exists, type OpenFile, readJson, syncDirectory, writeJson } from "../files/files.ts";
import { type NamedSource, writeSafetensors } from "../files/safetensors.ts";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, type SavedAdapter, writeAdapter } from "./adapter.ts";
import { system } from "../files/system.ts";

const TENSORS = ["model", "optimizer", "task"] as const, STATE = "state.json";
const fileOf = (tensors: typeof TENSORS[number]) => `${tensors}.safetensors`;
const NAME = /^checkpoint-[\d-]+$/;

/** A checkpoint to save. */
export interface Checkpoint {
  /** Number of completed updates. */ readonly iter: number;
  /** The model's parameters; undefined if only an adapter is trained. */ readonly model?: Iterable<NamedSource>;
  /** The adapter, if one is trained instead of the model. */ readonly adapter?: SavedAdapter;
  /** The optimizer's state. */ readonly optimizer: Iterable<NamedSource>;
  /** Parameters besides the model's, such as a head. */ readonly task?: Iterable<NamedSource>;
  /** Everything else that is needed to resume, as JSON. */ readonly state: Readonly<Record<string, unknown>>;
}

/** A checkpoint on the disk. */
export interface SavedCheckpoint {
  /** Name of its folder, such as checkpoint-000250. */ readonly name: string;
  /** Path of its folder, which also holds an adapter's two files. */ readonly folder: string;
  /** Path of the model's weights. */ readonly model: string;
  /** Path of the optimizer's tensors. */ readonly optimizer: string;
  /** Path of the task's parameters; the file exists only if the task has parameters. */ readonly task: string;
  /** Contents of state.json. */ readonly state: Readonly<Record<string, unknown>>;
}

export function isCheckpointName(name: unknown): name is string {
  return typeof name === "string" && NAME.test(name);
}

/**
 * A free name in `path` for the checkpoint of iteration `iter`. The usual name may be taken by an earlier run, or by
 * this run before it was resumed.
 */
export async function freeName(path: string, iter: number): Promise<string> {
  const stem = `checkpoint-${String(iter).padStart(6, "0")}`;
  let name = stem;
  for (let i = 2; await exists(`${path}/${name}`); i++) name = `${stem}-${i}`;
  return name;
}

/** Creates `folder`, writes the checkpoint, and waits until it is on the disk. @throws the errors of the file system */
export async function writeCheckpoint(folder: string, checkpoint: Checkpoint, open?: OpenFile): Promise<void> {
  await system.mkdir(folder);
  for (const name of TENSORS) {
    const tensors = checkpoint[name];
    if (tensors) await writeSafetensors(`${folder}/${fileOf(name)}`, tensors, { open });
  }
  if (checkpoint.adapter) await writeAdapter(folder, checkpoint.adapter, open);
  await writeJson(`${folder}/${STATE}`, checkpoint.state, open);
  await syncDirectory(folder);
}

/**
 * Reads a checkpoint's state.json; the tensors are not read.
 * @throws {CheckpointError} when state.json is missing or damaged
 */
export async function readCheckpoint(path: string, name: string): Promise<SavedCheckpoint> {
  const folder = `${path}/${name}`, state = await readJson(`${folder}/${STATE}`);
  const [model, optimizer, task] = TENSORS.map((name) => `${folder}/${fileOf(name)}`);
  return { name, folder, model, optimizer, task, state };
}

/** Removes the checkpoints in `path` that are not named in `kept`. Folders with other files stay. */
export async function removeOthers(path: string, kept: readonly unknown[]): Promise<void> {
  const parts = [...TENSORS.map(fileOf), STATE, ADAPTER_CONFIG, ADAPTER_WEIGHTS];
  for await (const { name, isDirectory } of system.readDir(path)) {
    if (!isDirectory || !isCheckpointName(name) || kept.includes(name)) continue;
    const files = await Array.fromAsync(system.readDir(`${path}/${name}`), ({ name }) => name);
    if (files.every((file) => parts.includes(file))) await system.remove(`${path}/${name}`, { recursive: true });
  }
}
