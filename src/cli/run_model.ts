/** A run folder, with the command that begins one where there is none. */
import { RunFolder } from "../checkpoint/run_folder.ts";
import { CheckpointError } from "../errors.ts";
import { exists } from "../files/files.ts";
import { taskCommand } from "./command.ts";

/** @throws {CheckpointError} when there is no run in the folder, or it is damaged */
export async function openRun(path: string): Promise<RunFolder> {
  try {
    return await RunFolder.open(path);
  } catch (error) {
    if (!(error instanceof CheckpointError) || await exists(`${path}/run.json`)) throw error;
    throw new CheckpointError(`${error.message}\nThis begins one: ${taskCommand("train", [`--out_dir=${path}`])}`);
  }
}
