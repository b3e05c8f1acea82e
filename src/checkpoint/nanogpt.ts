/**
 * Reads nanoGPT's ckpt.pt, which its train.py saves and its train.py and sample.py load:
 *
 *     { model, optimizer, model_args, iter_num, best_val_loss, config }
 *
 * The weights have our names. AdamW's moving averages have numbers instead of names: first come the parameters with
 * weight decay, which have two axes or more, then the parameters without. Each group is in the order of the model. The
 * head shares its weight with the token embeddings, and the weight is stored under both names. See nanogpt_model.ts for
 * the checks, nanogpt_save.ts for writing, and nanogpt_run.ts for whole runs.
 */
import { CheckpointError } from "../errors.ts";
import type { GPT, GPTConfig } from "../gpt.ts";
import type { AdamW } from "../optim/adamw.ts";
import {
  checkTied,
  checkWeights,
  configOf,
  isFloat,
  numberings,
  type Shapes,
  storedTensor,
  weightsIn,
} from "./nanogpt_model.ts";
import type { PickleDict, PickleValue } from "../files/pickle_values.ts";
import { owned } from "../files/files.ts";
import { shown } from "../files/shown.ts";
import type { NamedSource, TensorSource } from "../files/safetensors.ts";
import { finite, loadModel, type LoadOptions, type NamedTensors, readOnto } from "./tensors.ts";
import { TorchFile } from "../files/torch_file.ts";
import { TorchTensor } from "../files/torch_structure.ts";

/** The number that train.py saves as the best loss before the first evaluation. */
export const NO_LOSS = 1e9;

/** AdamW's state. */
export interface OptimizerSources {
  /** Number of steps that AdamW has made. */ readonly steps: number;
  /** Moving averages, by the names of {@linkcode AdamW.namedState}. */ readonly tensors: readonly NamedSource[];
}

/**
 * An open ckpt.pt. Sizes and shapes are checked when it is opened; tensors are read on request.
 *
 * @example
 * ```ts ignore
 * using file = await NanoGPTFile.open("out/ckpt.pt");
 * console.log(file.config.nLayer, file.iter, file.bestValLoss, file.flags.learning_rate);
 * ```
 */
export class NanoGPTFile implements Disposable {
  readonly #file: TorchFile;
  readonly #tensors: ReadonlyMap<string, TorchTensor>;
  readonly #shapes: Shapes;

  private constructor(
    file: TorchFile,
    readonly config: GPTConfig,
    /** Number of the next iteration, which is also the number of completed updates. */
    readonly iter: number,
    /** Best validation loss in nats per token; null before the first evaluation. */
    readonly bestValLoss: number | null,
    /** train.py's settings, including defaults, by its names: numbers, texts and booleans. */
    readonly flags: Readonly<Record<string, number | string | boolean>>,
    tensors: ReadonlyMap<string, TorchTensor>,
    shapes: Shapes,
  ) {
    this.#file = file;
    this.#tensors = tensors;
    this.#shapes = shapes;
  }

  /**
   * Opens a ckpt.pt and checks everything except the values of its tensors.
   * @param options.onNote called with a line about tensors that the model does not use
   * @throws {CheckpointError} when the file is missing, damaged, or not a checkpoint of nanoGPT
   */
  static async open(path: string, { onNote }: { onNote?: (line: string) => void } = {}): Promise<NanoGPTFile> {
    return await owned(await TorchFile.open(path), async (file) => {
      const { value } = file;
      const model = dict(value, "model"), args = dict(value, "model_args"), said = dict(value, "config");
      if (!model || !args) {
        throw new CheckpointError(
          `${path} is not a checkpoint of nanoGPT: it has no ${model ? "model_args" : "model"}`,
        );
      }
      const flags = Object.fromEntries(
        [...said ?? []].filter(([name, value]) => typeof name === "string" && isFlag(value)),
      ) as Record<string, number | string | boolean>;
      const tensors = weightsIn(model, path), config = configOf(args, { flags, path, most: tensors.size });
      const shapes = checkWeights(config, tensors, { path, onNote });
      await checkTied(file, tensors);
      const iter = await scalar(file, "iter_num"), loss = await scalar(file, "best_val_loss") ?? NO_LOSS;
      if (!Number.isSafeInteger(iter) || iter! < 0) {
        throw new CheckpointError(`${path} is damaged: iter_num is ${iter}`);
      }
      const best = Number.isFinite(loss) && loss < NO_LOSS ? loss : null;
      return new NanoGPTFile(file, config, iter!, best, flags, tensors, shapes);
    });
  }

  /** Path of the file. */ get path(): string {
    return this.#file.path;
  }

  /** The weights, with the names and in the order of {@linkcode GPT}'s parameters. */
  weights(): readonly NamedSource[] {
    return [...this.#shapes.keys()].map((name) => [name, this.#source(this.#tensors.get(name)!, name)]);
  }

  /**
   * The state of AdamW; undefined if the file has none.
   *
   * @throws {CheckpointError} when it is not the state of nanoGPT's AdamW for this model
   */
  async optimizer(): Promise<OptimizerSources | undefined> {
    const saved = await this.#moments();
    return saved && {
      steps: saved.steps,
      tensors: [...saved.tensors].map(([name, tensor]) => [name, this.#source(tensor, name)]),
    };
  }

  async #moments(): Promise<{ steps: number; tensors: ReadonlyMap<string, TorchTensor> } | undefined> {
    const saved = dict(this.#file.value, "optimizer"),
      state = dict(saved, "state"),
      groups = saved?.get("param_groups");
    if (!saved || state?.size === 0) return undefined;
    const refuse = (why: string) => new CheckpointError(`${this.path}: its optimizer is not nanoGPT's AdamW: ${why}`);
    if (!state || !Array.isArray(groups)) throw refuse("it has no state, or no param_groups");
    const sizes = (lists: readonly unknown[]) =>
      lists.map((list) => Array.isArray(list) ? list.length : 0).join(" and ") || "no";
    const numbers = groups.map((group) => group instanceof Map ? group.get("params") : undefined);
    const known = numberings(this.#shapes), numbering = known.find((names) => sizes(names) === sizes(numbers));
    if (!numbering) throw refuse(`it has groups of ${sizes(numbers)} parameters, expected ${sizes(known[0])}`);
    const tensors = new Map<string, TorchTensor>(),
      steps = new Set<number | undefined>(),
      names = numbering.flat();
    for (const [i, number] of numbers.flat().entries()) {
      const own = state.get(number as number), name = names[i], shape = this.#shapes.get(name);
      if (!(own instanceof Map)) throw refuse(`${name}, number ${shown(`${number}`)}, has no state`);
      steps.add(await value(this.#file, own.get("step"), `step of ${name}`));
      for (const part of ["exp_avg", "exp_avg_sq"]) {
        const tensor = own.get(part);
        if (!(tensor instanceof TorchTensor)) throw refuse(`${part} of ${name} is not a tensor`);
        if (`${tensor.shape}` !== `${shape}` || !isFloat(tensor)) {
          throw refuse(`${part} of ${name} is ${tensor.dtype} [${tensor.shape}], expected floats [${shape}]`);
        }
        tensors.set(`${name}.${part}`, tensor);
      }
    }
    const [step] = steps;
    if (steps.size > 1 || !Number.isSafeInteger(step) || step! < 0) throw refuse(`its steps are ${[...steps]}`);
    return { steps: step!, tensors };
  }

  /** A new model with the file's weights. @throws {DeviceError} when the model does not fit into the device's memory */
  model(options: LoadOptions): Promise<GPT> {
    return loadModel(this.config, options, (model) => this.load(model));
  }
  /** Reads the weights into a model with this config. */
  async load(model: GPT): Promise<void> {
    await this.#copy(this.#tensors, model.namedParameters());
  }
  /**
   * Reads the state of the optimizer, if the file has one.
   *
   * @returns whether the file has one
   * @throws {CheckpointError} when it is not the state of nanoGPT's AdamW for this model
   */
  async loadOptimizer(optimizer: AdamW): Promise<boolean> {
    const saved = await this.#moments();
    if (!saved) return false;
    await this.#copy(saved.tensors, optimizer.namedState());
    optimizer.t = saved.steps;
    return true;
  }

  /** Reads tensors onto the device. */
  async #copy(from: ReadonlyMap<string, TorchTensor>, to: NamedTensors): Promise<void> {
    for (const [name, { storage }] of to) await readOnto(storage, storedTensor(this.#file, from.get(name)!, name));
  }

  #source(tensor: TorchTensor, name: string): TensorSource {
    const { shape, dtype } = tensor;
    const data = async () => finite(await this.#file.read(tensor, name), this.path, name);
    return { dtype: dtype === "F64" ? "F64" : "F32", shape, data };
  }

  /** Closes the file. */ close(): void {
    this.#file.close();
  }
  /** As close(). */ [Symbol.dispose](): void {
    this.close();
  }
}

/** A model loaded from a ckpt.pt, and the progress of its training. */
export interface LoadedNanoGPT extends Pick<NanoGPTFile, "iter" | "bestValLoss" | "flags"> {
  /** The model, in training mode. */ readonly model: GPT;
}

/**
 * Loads the model of a ckpt.pt. Loading needs memory for the model and 4 MiB more.
 *
 * @throws {CheckpointError} when the file is missing, damaged, or not a checkpoint of nanoGPT
 * @throws {DeviceError} when the model does not fit into the device's memory
 * @example
 * ```ts ignore
 * const { model, iter } = await loadNanoGPT("out/ckpt.pt", { device: await createDevice("auto") });
 * ```
 */
export async function loadNanoGPT(path: string, options: LoadOptions): Promise<LoadedNanoGPT> {
  using file = await NanoGPTFile.open(path);
  const { iter, bestValLoss, flags } = file;
  return { model: await file.model(options), iter, bestValLoss, flags };
}

const isFlag = (value: unknown): boolean => ["number", "string", "boolean"].includes(typeof value);

function dict(value: PickleValue | undefined, key: string): PickleDict | undefined {
  const item = value instanceof Map ? value.get(key) : undefined;
  return item instanceof Map ? item as PickleDict : undefined;
}

/** A number, stored as such or as a tensor with one element. */
async function value(file: TorchFile, value: PickleValue | undefined, name: string): Promise<number | undefined> {
  if (value instanceof TorchTensor && value.size === 1) return (await file.read(value, name))[0];
  return typeof value === "number" ? value : undefined;
}
function scalar(file: TorchFile, key: string): Promise<number | undefined> {
  return value(file, file.value instanceof Map ? file.value.get(key) : undefined, key);
}
