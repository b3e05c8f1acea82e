/**
 * Loads a GPT-2 from a folder of Hugging Face's transformers: config.json and the weights
 * (https://huggingface.co/docs/transformers/model_doc/gpt2).
 *
 * The tensors have the same names as our parameters, because nanoGPT took the names from transformers. But
 * transformers' GPT-2 has "Conv1D" layers, whose weights are stored (in, out). Ours are (out, in), so they are
 * transposed on the device.
 */
import { transpose } from "../../kernels/transpose/kernel.ts";
import { shortage } from "../engine/capacity.ts";
import { Storage } from "../engine/device.ts";
import { DryDevice } from "../device/dry.ts";
import { CheckpointError, DeviceError } from "../errors.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, Tensor } from "../engine/tensor.ts";
import { owned, readJson } from "../files/files.ts";
import { fromHuggingFaceConfig } from "./hugging_face_config.ts";
import { headOf, headShapes, type HuggingFaceHead } from "./hugging_face_heads.ts";
import type { WeightsFile } from "../files/safetensors.ts";
import { EMBEDDINGS, HEAD, type Shapes, shapesOf } from "./nanogpt_model.ts";
import {
  FLOATS,
  type LoadOptions,
  type NamedTensors,
  noteUnused,
  readOnto,
  sameElements,
  storedIn,
} from "./tensors.ts";
import { some } from "../files/shown.ts";
import { openWeightsFolder } from "../files/weights_folder.ts";

const PREFIX = "transformer.";
/** Weights that are stored (in, out). */
export const CONV1D = /\.(c_attn|c_fc|c_proj)\.weight$/;
/** Causal masks, which older files store among the weights. */
const MASK = /^transformer\.h\.\d+\.attn\.(masked_)?bias$/;

/** Options of {@linkcode loadHuggingFace}. */
export interface LoadHuggingFaceOptions extends Omit<LoadOptions, "generator"> {
  /** Seed of dropout's noise. Default: 1337. */ readonly seed?: number;
  /**
   * Called if config.json names a head, such as `GPT2ForSequenceClassification`. It makes the head and returns its
   * parameters by transformers' names; parameters that it does not return are not read. Without this option, a
   * classifier is rejected.
   */
  readonly head?: (found: HuggingFaceHead, model: GPT) => NamedTensors;
  /** Called with a line about each difference from config.json. */ readonly onNote?: (line: string) => void;
}

/**
 * Loads the GPT-2 in a folder: config.json with model.safetensors, its shards and their index, or pytorch_model.bin.
 * Weights may be f32, f16 or bf16. Loading needs memory for the model and for a second copy of its largest matrix.
 *
 * The config, the names, shapes and types of all tensors, and the device's free memory are checked before any weight is
 * read.
 *
 * @param path path of the folder
 * @returns the model, in evaluation mode
 * @throws {CheckpointError} when a file is missing, damaged, or belongs to another model
 * @throws {DeviceError} when the weights do not fit into the device's memory
 * @example
 * ```ts ignore
 * const device = await createDevice("auto");
 * const model = await loadHuggingFace(await downloadModel("gpt2"), { device });
 * const { logits } = model.forward(device.tensor([15496, 11], [1, 2], { dtype: "i32" })); // "Hello,"
 * ```
 */
export async function loadHuggingFace(path: string, options: LoadHuggingFaceOptions): Promise<GPT> {
  const { onNote = () => {} } = options, configPath = `${path}/config.json`, json = await readJson(configPath);
  const config = fromHuggingFaceConfig(json, configPath, { headed: options.head !== undefined, onNote });
  const head = options.head && headOf(json, configPath);
  // A classifier has no language-model head, so tie_word_embeddings does not apply.
  const said = head?.architecture === "GPT2ForSequenceClassification" ? { ...config, tieWordEmbeddings: true } : config;
  using file = await openWeightsFolder(path);
  const others = new Map(head && headShapes(head, said.nEmbd));
  const names = ourNames(file, others), twice = said.tieWordEmbeddings && names.has(HEAD);
  if (twice && !names.has(EMBEDDINGS)) names.set(EMBEDDINGS, names.get(HEAD)!).delete(HEAD);
  if (said.nLayer > names.size) {
    throw new CheckpointError(
      `${configPath} says n_layer ${said.nLayer}, but ${file.path} has only ${names.size} tensors`,
    );
  }
  checkTensors(
    new Map([...shapesOf({ ...said, tieWordEmbeddings: said.tieWordEmbeddings && !names.has(HEAD) }), ...others]),
    file,
    names,
    onNote,
  );
  let tieWordEmbeddings = said.tieWordEmbeddings;
  if (twice && names.has(HEAD)) {
    tieWordEmbeddings = await sameElements(
      storedIn(file, names.get(EMBEDDINGS)!),
      storedIn(file, names.get(HEAD)!),
      sizeOf(file.tensors.get(names.get(HEAD)!)!.shape),
    );
    if (tieWordEmbeddings) {
      names.delete(HEAD);
    } else {
      onNote(`${configPath} ties the head to the embeddings, but they differ in ${file.path}; the model is not tied`);
    }
  }
  const sizes = { ...said, dropout: options.dropout ?? said.dropout, tieWordEmbeddings };
  checkRoom(sizes, options, path);
  const { device, seed, weights, inference } = options;
  return await owned(new GPT(sizes, { device, seed, weights, inference, initialize: false }), async (model) => {
    const added = head ? options.head!(head, model) : [];
    await readWeights(model, new Map([...model.namedParameters(), ...added]), { file, names });
    return model.eval();
  });
}

/**
 * Maps our names to the names in the file. Ours begin with `transformer.`, like GPT2LMHeadModel's. GPT2Model's do not.
 */
function ourNames({ path, tensors }: WeightsFile, others: Shapes): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of tensors.keys()) {
    const ours = name.startsWith(PREFIX) || name === HEAD || others.has(name) ? name : PREFIX + name,
      other = names.get(ours);
    if (MASK.test(ours)) continue;
    if (other !== undefined) {
      throw new CheckpointError(`${path} has ${other} and ${name}, which name the same parameter`);
    }
    names.set(ours, name);
  }
  return names;
}

/**
 * Checks the tensors of a file against the model's parameters. Removes the tensors that the model does not use from
 * `names` and reports them to `onNote`.
 *
 * @throws {CheckpointError} when a tensor is missing, or has another shape or type
 */
function checkTensors(
  parameters: Shapes,
  { path, tensors }: WeightsFile,
  names: Map<string, string>,
  onNote: (line: string) => void,
): void {
  const missing: string[] = [], wrong: string[] = [];
  for (const [ours, shape] of parameters) {
    const name = names.get(ours), tensor = tensors.get(name!);
    const stored = CONV1D.test(ours) ? shape.toReversed() : shape;
    if (!tensor) missing.push(ours);
    else if (`${tensor.shape}` !== `${stored}` || tensor.shape.length !== stored.length) {
      wrong.push(`${name} is [${tensor.shape}], expected [${stored}]`);
    } else if (!FLOATS.includes(tensor.dtype)) {
      wrong.push(`${name} is ${tensor.dtype}, expected one of ${FLOATS.join(", ")}`);
    }
  }
  if (missing.length > 0) throw new CheckpointError(`${path} is not of the model in config.json: no ${some(missing)}`);
  if (wrong.length > 0) throw new CheckpointError(`${path} is not of the model in config.json: ${some(wrong)}`);
  const extra = [...names.keys()].filter((ours) => !parameters.has(ours));
  noteUnused(extra, { parameters, path, onNote });
  for (const ours of extra) names.delete(ours);
}

/**
 * Checks the device's free memory.
 * @throws {DeviceError} when the model and the buffer to transpose its largest matrix do not fit
 */
function checkRoom(config: GPTConfig, { device, weights, inference }: LoadHuggingFaceOptions, path: string): void {
  const dry = new DryDevice(device);
  new Turner(new GPT(config, { device: dry, weights, inference, initialize: false }));
  const why = shortage({ bytes: dry.memory().reserved, largest: dry.largest }, device);
  if (why) throw new DeviceError(`${path} ${why}`);
}

async function readWeights(
  model: GPT,
  parameters: ReadonlyMap<string, Tensor>,
  { file, names }: { file: WeightsFile; names: ReadonlyMap<string, string> },
): Promise<void> {
  using turner = new Turner(model);
  for (const [ours, name] of names) {
    const weight = parameters.get(ours);
    if (!weight) continue; // belongs to a head that is not loaded
    const turned = CONV1D.test(ours);
    await readOnto(turned ? turner.stored(weight) : weight.storage, storedIn(file, name));
    if (turned) await turner.turn(weight);
  }
}

/** Transposes matrices on the device. Its buffers have room for the largest matrix of the model. */
class Turner implements Disposable {
  readonly #from: Tensor;
  /** Receives the transposed matrix if the weight is not f32, the only type that the kernel writes. */
  readonly #to: Tensor | undefined;

  constructor(model: GPT) {
    const matrices = [...model.namedParameters()].filter(([name]) => CONV1D.test(name)).map(([, weight]) => weight);
    const shape = [Math.max(...matrices.map(({ size }) => size))];
    this.#from = model.device.empty(shape);
    this.#to = matrices[0].dtype === "f32" ? undefined : model.device.empty(shape);
  }
  /** The storage into which the file's weight (in, out) is read before it is transposed to (out, in). */
  stored({ size }: Tensor): Storage {
    return new Storage(this.#from.storage.block, size);
  }
  async turn(weight: Tensor): Promise<void> {
    const { device, size, shape: [outputs, inputs] } = weight;
    const to = this.#to ? new Storage(this.#to.storage.block, size) : weight.storage;
    {
      using _ = device.scope();
      const x = new Tensor(this.stored(weight), [1, inputs, outputs]), y = new Tensor(to, [1, outputs, inputs]);
      launch(transpose, { x, y });
    }
    if (this.#to) device.write(weight.storage, await device.read(to));
  }
  [Symbol.dispose](): void {
    this.#from.dispose();
    this.#to?.dispose();
  }
}
