/**
 * Runs rows through a model and its head without training: computes scores, or the pooled states, which can be stored
 * in a file.
 */
import { paddedLengths } from "../data/token_rows.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { Checksum } from "../files/checksum.ts";
import { exists, type OpenFile, replaceFile } from "../files/files.ts";
import { SafetensorsFile, safetensorsParts, type TensorSource } from "../files/safetensors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { Breather } from "../loop/breather.ts";
import { evaluating } from "../nn/module.ts";
import { headBatch, type HeadRows, identify } from "./head_rows.ts";
import { type Head, type HeadDescription, scores } from "./head_description.ts";
import type { Splits } from "./row_task.ts";
import { pooled } from "./heads.ts";

/** Options of {@linkcode headScores} and {@linkcode headFeatures}. */
export interface PassOptions {
  /** The padding token, which is never pooled. */ readonly padTokenId?: number;
  /** Rows in a pass. Default: 16. */ readonly batchSize?: number;
  /** Aborts before the next pass, with the signal's reason. */ readonly signal?: AbortSignal;
  /** Called with the number of rows done and the total. */ readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Runs passes over batches of rows of similar lengths. `body` computes numbers from the pooled states (R, C), where R
 * is rows times `choices`.
 */
async function* passes(
  model: GPT,
  rows: HeadRows,
  { padTokenId, batchSize = 16, signal, onProgress, choices, body }: PassOptions & {
    readonly choices: number;
    readonly body: (states: Tensor, mask?: Tensor) => Tensor;
  },
): AsyncGenerator<{ numbers: readonly number[]; values: NumberArray }> {
  const { device, config: { blockSize, vocabSize } } = model, breather = new Breather();
  const longest = Array.from(
    { length: rows.length },
    (_, row) => Math.max(...rows.sequences(row).map((s) => s.length)),
  );
  const order = longest.map((_, row) => row).sort((a, b) => longest[a] - longest[b]);
  const options = { lengths: paddedLengths(blockSize), choices, vocabSize, padTokenId };
  const pass = (numbers: readonly number[]) => {
    using scope = device.scope();
    const { tokens, at, mask } = headBatch(rows, numbers, options);
    const tensor = ({ values, shape }: typeof tokens, dtype: "i32" | "f32") => device.tensor(values, shape, { dtype });
    const states = pooled(model.hidden(tensor(tokens, "i32")), tensor(at, "i32"));
    return scope.keep(body(states, mask && tensor(mask, "f32")));
  };
  for (let at = 0; at < rows.length; at += batchSize) {
    signal?.throwIfAborted();
    const numbers = order.slice(at, at + batchSize), result = evaluating(model, () => noGrad(() => pass(numbers)));
    try {
      yield { numbers, values: await result.data() };
    } finally {
      result.dispose();
    }
    onProgress?.(at + numbers.length, rows.length);
    await breather.breathe();
  }
}

/**
 * Computes a head's scores of rows, before softmax or sigmoid: transformers' `logits`.
 *
 * @returns for each row L scores, one for each label; for `choose`, one for each of the row's choices
 * @throws {DataError} when a row consists of padding
 */
export async function headScores(
  model: GPT,
  head: Head,
  { description, rows, ...options }: Omit<PassOptions, "padTokenId"> & {
    readonly description: HeadDescription;
    readonly rows: HeadRows;
  },
): Promise<NumberArray[]> {
  const found: NumberArray[] = [], { padTokenId } = description, { choices } = rows;
  const body = (states: Tensor, mask?: Tensor) => evaluating(head, () => scores(head, description, states, mask));
  for await (const { numbers, values } of passes(model, rows, { ...options, padTokenId, choices, body })) {
    const width = values.length / numbers.length;
    for (const [i, row] of numbers.entries()) {
      const end = description.kind === "choose" ? rows.sequences(row).length : width;
      found[row] = values.slice(i * width, i * width + end);
    }
  }
  return found;
}

/**
 * Computes the pooled hidden states of rows, without dropout. A head on a frozen model can then be trained for many
 * epochs without running the model again.
 *
 * @returns C numbers for each sequence of each row
 */
export async function headFeatures(model: GPT, rows: HeadRows, options: PassOptions = {}): Promise<Float32Array> {
  const { choices } = rows, width = model.config.nEmbd, all = new Float32Array(rows.first(rows.length) * width);
  for await (const { numbers, values } of passes(model, rows, { ...options, choices, body: (states) => states })) {
    for (const [i, row] of numbers.entries()) {
      const begin = i * choices * width, end = begin + rows.sequences(row).length * width;
      all.set(values.subarray(begin, end), rows.first(row) * width);
    }
  }
  return all;
}

/**
 * Reads the results of {@linkcode headFeatures} for both splits from a file. If the file is missing, computes and writes
 * them.
 *
 * @param path a safetensors file with `train` and `val`, both (sequences, C)
 * @returns the features, and whether they were read from the file
 * @throws {CheckpointError} when the file belongs to different rows or a different model, or cannot be written
 */
export async function storedFeatures(
  path: string,
  model: GPT,
  { rows, open, ...options }: PassOptions & {
    readonly rows: Splits<HeadRows>;
    readonly open?: OpenFile;
  },
): Promise<{ features: Splits<Float32Array>; read: boolean }> {
  const of = (split: HeadRows) => {
    const { length, checksum } = identify(split);
    return `${split.length} rows, ${length}, ${checksum}`;
  };
  const metadata = {
    train: of(rows.train),
    val: of(rows.val),
    model: await checksumOf(model),
    pad: `${options.padTokenId ?? "none"}`,
  };
  if (await exists(path)) {
    using file = await SafetensorsFile.open(path);
    const other = Object.entries(metadata).find(([key, value]) => file.metadata[key] !== value);
    if (other) {
      const of = other[0] === "model" ? "of another model" : "of other rows";
      throw new CheckpointError(`${path} has features ${of}; pass another file, or remove this one`);
    }
    const read = async (name: "train" | "val") => await file.readTensor(name) as Float32Array;
    return { features: { train: await read("train"), val: await read("val") }, read: true };
  }
  const { nEmbd } = model.config, total = rows.train.length + rows.val.length, { onProgress } = options;
  const train = await headFeatures(model, rows.train, { ...options, onProgress: (done) => onProgress?.(done, total) });
  const onVal = (done: number) => onProgress?.(rows.train.length + done, total);
  const features = { train, val: await headFeatures(model, rows.val, { ...options, onProgress: onVal }) };
  const tensors = Object.entries(features).map(([name, values]): [string, TensorSource] => [
    name,
    { dtype: "F32", shape: [values.length / nEmbd, nEmbd], data: () => values as Float32Array<ArrayBuffer> },
  ]);
  await replaceFile(path, safetensorsParts(tensors, { metadata }), open);
  return { features, read: false };
}

/**
 * A checksum of a model. At most 4096 evenly spaced elements of each parameter are enough, because training changes
 * every element.
 */
async function checksumOf(model: GPT): Promise<string> {
  const checksum = new Checksum();
  for (const parameter of model.parameters()) {
    const values = Float32Array.from(await parameter.data());
    checksum.add(new Uint32Array(values.buffer), Math.ceil(values.length / 4096));
  }
  return `${model.config.nLayer} layers, ${checksum}`;
}
