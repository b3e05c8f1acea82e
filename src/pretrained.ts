/** A trained model with its tokenizer, from wherever it is kept. What reads it is loaded when it is needed. */
import { exists } from "./checkpoint/files.ts";
import type { Device } from "./device/device.ts";
import { ConfigError } from "./errors.ts";
import { GPT, type GPTConfig } from "./gpt.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

export interface PretrainedOptions {
  readonly device: Device;
  /** Instead of the one that is kept with the model: a name (`gpt2`), a folder, or a tokenizer. */
  readonly tokenizer?: string | Tokenizer;
  /** Takes a line for the user, without a newline, when something is worth knowing. */
  readonly onNote?: (line: string) => void;
}

/** What {@linkcode loadPretrained} gives. */
export interface Pretrained {
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
}

/**
 * Loads a model to generate with: a run folder (its best checkpoint), or a Hugging Face folder.
 *
 * @param path of the folder
 * @returns the model, in evaluation mode, and its tokenizer
 * @throws {ConfigError} when there is no such folder, or nothing in it that can be read
 * @throws {CheckpointError} when what is there is damaged
 * @throws {DeviceError} when the weights do not fit into the device's memory
 */
export async function loadPretrained(
  path: string,
  { device, tokenizer, onNote }: PretrainedOptions,
): Promise<Pretrained> {
  const vocabulary = async (folder: string) => {
    if (typeof tokenizer === "object") return tokenizer;
    const { loadTokenizer } = await import("./tokenizer/load.ts");
    return await loadTokenizer(tokenizer ?? folder);
  };
  if (await exists(`${path}/run.json`)) {
    const [tokens, model] = [await vocabulary(path), await loadRun(path, device)];
    return { model, tokenizer: tokens };
  }
  if (await exists(`${path}/config.json`)) {
    const { loadHuggingFace } = await import("./checkpoint/hugging_face.ts"), tokens = await vocabulary(path);
    return { model: await loadHuggingFace(path, { device, onNote }), tokenizer: tokens };
  }
  throw new ConfigError(
    `No model in ${
      JSON.stringify(path)
    }: expected a run folder, with run.json, or a Hugging Face folder, with config.json`,
  );
}

async function loadRun(path: string, device: Device): Promise<GPT> {
  const { RunFolder } = await import("./checkpoint/run_folder.ts");
  const { loadTensors } = await import("./checkpoint/tensors.ts");
  const run = await RunFolder.open(path), { model: file } = await run.checkpoint("best");
  const model = new GPT(run.description.model as Partial<GPTConfig>, { device, initialize: false });
  await loadTensors(file, model.namedParameters());
  return model.eval();
}
