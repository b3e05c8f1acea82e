/** A trained model out of a run folder, with its vocabulary. */
import { exists } from "../files/files.ts";
import { RunFolder } from "../checkpoint/run_folder.ts";
import { loadTensors } from "../checkpoint/tensors.ts";
import type { Device } from "../engine/device.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import type { Generator } from "../random/mod.ts";
import { CharacterTokenizer } from "../tokenizer/character.ts";
import { tokenizerFromJSON } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
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

/**
 * The tokenizer of a run.
 *
 * @throws {CheckpointError} when it is none, or not the model's
 * @throws {DataError} when the package with its vocabulary cannot be had
 */
export async function vocabularyOf(run: RunFolder): Promise<Tokenizer> {
  const { vocabulary, model } = run.description, vocabSize = Number(model.vocabSize);
  const tokenizer = await tokenizerFromJSON(vocabulary, `${run.path}/vocabulary.json`);
  const characters = tokenizer instanceof CharacterTokenizer;
  // A model may know more tokens than there are: its vocabulary is padded to a multiple of 64.
  if (characters ? tokenizer.vocabSize === vocabSize : tokenizer.vocabSize <= vocabSize) return tokenizer;
  const there = `vocabulary.json has ${tokenizer.vocabSize} ${characters ? "characters" : "tokens"}`;
  throw new CheckpointError(`${run.path} is damaged: ${there}, and the model in run.json has vocabSize ${vocabSize}`);
}

/**
 * The model of the run's best checkpoint, ready to generate.
 *
 * @param options.generator as nanoGPT seeds before it makes the model, initial weights are drawn from it and then replaced;
 *   what it draws afterwards is what nanoGPT's would draw
 * @throws {CheckpointError} when there is no checkpoint, or it is damaged
 */
export async function loadBest(run: RunFolder, options: { device: Device; generator: Generator }): Promise<GPT> {
  const model = newModel(run, options);
  await run.read("best", (checkpoint) => loadTensors(checkpoint.model, model.namedParameters()));
  return model.eval();
}

/** A model with the run's sizes; run.json is a file that anybody may have edited. */
function newModel(run: RunFolder, options: { device: Device; generator: Generator }): GPT {
  try {
    return new GPT(run.description.model as Partial<GPTConfig>, options);
  } catch (error) {
    if (error instanceof ConfigError) throw new CheckpointError(`${run.path}/run.json is damaged: ${error.message}`);
    throw error;
  }
}
