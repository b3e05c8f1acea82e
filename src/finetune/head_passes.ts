/** Rows through a model and its head without training: their scores, or the states that a head sees, computed once and stored. */
import { paddedLengths } from "../data/token_rows.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { Checksum } from "../files/checksum.ts";
import { exists, type OpenFile } from "../files/files.ts";
import { SafetensorsFile, type TensorSource, writeSafetensors } from "../files/safetensors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { Breather } from "../loop/breather.ts";
import { evaluating } from "../nn/module.ts";
import { headBatch, type HeadRows, identify } from "./head_rows.ts";
import { type Head, type HeadDescription, scores } from "./head_description.ts";
import type { HeadSplits } from "./head_task.ts";
import { pooled } from "./heads.ts";

/** How rows are passed through. */
export interface PassOptions {
  /** What fills rows up, and is never pooled. */ readonly padTokenId?: number;
  /** Rows of a pass; default 16. */ readonly batchSize?: number;
  /** Ends it before the next pass, with the signal's reason. */ readonly signal?: AbortSignal;
  /** Takes how many rows are done. */ readonly onProgress?: (done: number, total: number) => void;
}

/** Passes of rows of like lengths; `body` makes numbers of the pooled states (R, C), R being rows times `choices`. */
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
 * What a head says of rows: before softmax or sigmoid, as transformers' `logits`.
 *
 * @returns the scores of each row, L labels or, for `choose`, as many as the row has choices
 * @throws {DataError} when a row is nothing but padding
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
 * The hidden states that a head sees: what is below it is computed once, without dropout, for as many epochs as there are.
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
 * {@linkcode headFeatures} of both splits out of a file, which is written where it is not there.
 *
 * @param path of the file, safetensors with `train` and `val`, both (sequences, C)
 * @returns the features, and whether they were in the file
 * @throws {CheckpointError} when the file is of other rows or of another model, or cannot be written
 */
export async function storedFeatures(
  path: string,
  model: GPT,
  { rows, open, ...options }: PassOptions & {
    readonly rows: HeadSplits;
    readonly open?: OpenFile;
  },
): Promise<{ features: HeadSplits<Float32Array>; read: boolean }> {
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
      throw new CheckpointError(`${path} has features ${of}: name another file, or remove it`);
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
  await writeSafetensors(path, tensors, { metadata, open });
  return { features, read: false };
}

/** Of elements that lie evenly in each parameter: training changes every one. */
async function checksumOf(model: GPT): Promise<string> {
  const checksum = new Checksum();
  for (const parameter of model.parameters()) {
    const values = Float32Array.from(await parameter.data());
    checksum.add(new Uint32Array(values.buffer), Math.ceil(values.length / 4096));
  }
  return `${model.config.nLayer} layers, ${checksum}`;
}
