/** Opens the runs, devices and models that a command's flags name. */
import { RunFolder } from "../checkpoint/run_folder.ts";
import { createDevice } from "../device/create.ts";
import type { Native } from "../device/cpu.ts";
import type { Device } from "../engine/device.ts";
import { CheckpointError } from "../errors.ts";
import { exists } from "../files/files.ts";
import { loadPretrained, type Pretrained } from "../pretrained/load.ts";
import { taskCommand } from "./command.ts";
import type { Values } from "./flags.ts";
import type { Progress } from "./progress.ts";
import { type deviceFlags, type modelFlags, reportDownload } from "./shared_flags.ts";

/** Opens a run folder. @throws {CheckpointError} if there is no run in the folder, or it is damaged */
export async function openRun(path: string, task: "train" | "finetune" = "train"): Promise<RunFolder> {
  try {
    return await RunFolder.open(path);
  } catch (error) {
    if (!(error instanceof CheckpointError) || await exists(`${path}/run.json`)) throw error;
    const more = task === "finetune" ? ["--data=FILE.jsonl", "--init_from=MODEL"] : [];
    throw new CheckpointError(
      `${error.message}\nThis begins a run: ${taskCommand(task, [...more, `--out_dir=${path}`])}`,
    );
  }
}

/** The device that the flags name. */
export function openDevice({ device, threads }: Values<typeof deviceFlags>, native?: Native): Promise<Device> {
  return createDevice(device, { threads: threads || undefined, native });
}

/** The model's name: the value of `--init_from`, or `--out_dir` for `--init_from=resume`. */
export const modelName = ({ init_from, out_dir }: Pick<Values<typeof modelFlags>, "init_from" | "out_dir">): string =>
  init_from === "resume" ? out_dir : init_from;

/**
 * Loads the model that the flags name, for inference, with its own tokenizer or the named one. Notes are printed to
 * `progress`.
 */
export async function loadNamed(
  values: Values<typeof modelFlags> & { readonly tokenizer: string },
  device: Device,
  progress: Progress,
): Promise<Pretrained> {
  const { weights, checkpoint } = values,
    [tokenizer, adapter] = [values.tokenizer, values.adapter].map((name) => name || undefined);
  const onNote = (line: string) => progress.line(line), onProgress = reportDownload(progress);
  const options = { device, weights, inference: true, checkpoint, tokenizer, adapter, onNote, onProgress };
  return await loadPretrained(modelName(values), options);
}
