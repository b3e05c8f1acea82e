/** The folders of checkpoints in a run's folder: their names, what is in one, and which may go. */
import { exists, type OpenFile, readJson, syncDirectory, writeJson } from "../files/files.ts";
import { type NamedSource, writeSafetensors } from "../files/safetensors.ts";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, type SavedAdapter, writeAdapter } from "./adapter.ts";
import { system } from "../files/system.ts";

const TENSORS = ["model", "optimizer", "task"] as const, STATE = "state.json";
const fileOf = (tensors: typeof TENSORS[number]) => `${tensors}.safetensors`;
const NAME = /^checkpoint-[\d-]+$/;

/** What a save writes. */
export interface Checkpoint {
  /** How many updates were made. */ readonly iter: number;
  /** The model's parameters; none where only an adapter is trained. */ readonly model?: Iterable<NamedSource>;
  /** What is trained in their place: PEFT's two files. */ readonly adapter?: SavedAdapter;
  /** The optimizer's state. */ readonly optimizer: Iterable<NamedSource>;
  /** Parameters besides the model's, such as a head. */ readonly task?: Iterable<NamedSource>;
  /** What else it takes to go on, as JSON. */ readonly state: Readonly<Record<string, unknown>>;
}

/** A checkpoint on the disk. */
export interface SavedCheckpoint {
  /** Of its folder, such as checkpoint-000250. */ readonly name: string;
  /** Path of the folder, in which an adapter's two files are. */ readonly folder: string;
  /** Path of the weights. */ readonly model: string;
  /** Path of the optimizer's tensors. */ readonly optimizer: string;
  /** Path of the task's parameters, if it has any. */ readonly task: string;
  /** What state.json holds. */ readonly state: Readonly<Record<string, unknown>>;
}

export function isCheckpointName(name: unknown): name is string {
  return typeof name === "string" && NAME.test(name);
}

/** A name for the checkpoint of `iter` that none in `path` has: an earlier run, or this one before it was resumed, may. */
export async function freeName(path: string, iter: number): Promise<string> {
  const stem = `checkpoint-${String(iter).padStart(6, "0")}`;
  let name = stem;
  for (let i = 2; await exists(`${path}/${name}`); i++) name = `${stem}-${i}`;
  return name;
}

/** Makes `folder` and brings all of `checkpoint` to the disk. @throws what the system says */
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

/** @throws {CheckpointError} when the state is missing or damaged; the tensors are only named */
export async function readCheckpoint(path: string, name: string): Promise<SavedCheckpoint> {
  const folder = `${path}/${name}`, state = await readJson(`${folder}/${STATE}`);
  const [model, optimizer, task] = TENSORS.map((name) => `${folder}/${fileOf(name)}`);
  return { name, folder, model, optimizer, task, state };
}

/** Removes the checkpoints in `path` other than those of `kept`, but nothing that a run would not have written. */
export async function removeOthers(path: string, kept: readonly unknown[]): Promise<void> {
  const parts = [...TENSORS.map(fileOf), STATE, ADAPTER_CONFIG, ADAPTER_WEIGHTS];
  for await (const { name, isDirectory } of system.readDir(path)) {
    if (!isDirectory || !isCheckpointName(name) || kept.includes(name)) continue;
    const files = await Array.fromAsync(system.readDir(`${path}/${name}`), ({ name }) => name);
    if (files.every((file) => parts.includes(file))) await system.remove(`${path}/${name}`, { recursive: true });
  }
}
