/** Saves a GPT-2 as a folder that Hugging Face's transformers loads with `GPT2LMHeadModel.from_pretrained(path)`. */
import { transpose } from "../../kernels/transpose/kernel.ts";
import { CheckpointError, ConfigError, DeviceError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { launch } from "../engine/launch.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import { endIds, specialIds, toHuggingFaceTokenizer } from "../tokenizer/to_hugging_face.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { reason } from "../files/reason.ts";
import { sizeOf, type Tensor, untrainable } from "../engine/tensor.ts";
import { exists, type OpenFile, readJson, writeFile, writeJson } from "../files/files.ts";
import { createFolder } from "../files/locks.ts";
import { CONV1D } from "./hugging_face.ts";
import { shapesOf } from "./nanogpt_model.ts";
import { headShapes, type SavedHead } from "./hugging_face_heads.ts";
import { plainParameters } from "./tensors.ts";
import { toHuggingFaceConfig, tokenIds } from "./hugging_face_config.ts";
import { type TensorSource, writeSafetensors } from "../files/safetensors.ts";
import { system } from "../files/system.ts";

/** Types of saved weights: PyTorch's name, and bytes per element. */
const TYPES = {
  F32: { torch: "float32", bytes: 4 },
  F16: { torch: "float16", bytes: 2 },
  BF16: { torch: "bfloat16", bytes: 2 },
};
/**
 * Smallest magnitude that becomes infinite. 65520 is the smallest f32 that F16 rounds to infinity. Q8_0 stores weights
 * as up to 127 times a scale, which is an F16.
 */
const LIMITS: Readonly<Record<string, number>> = { F16: 65520, Q8_0: 127 * 65520 };
/** Files from which transformers reads a tokenizer. */
const VOCABULARY = [
  ...["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
  ...["vocab.json", "merges.txt", "chat_template.jinja"],
];

/** Options of {@linkcode saveHuggingFace}. */
export interface SaveHuggingFaceOptions {
  /** Type of the weights: F32 (default), or rounded to F16 or BF16. */
  readonly dtype?: "F32" | "F16" | "BF16";
  /**
   * Largest file of weights, in bytes; larger models are split into several files. Default: 50e9, as in transformers.
   */
  readonly maxShardSize?: number;
  /** A folder whose tokenizer files, and ids of the tokens that begin and end a text, are copied to the new folder. */
  readonly vocabularyFrom?: string;
  /** A tokenizer to write instead: characters, or byte pairs with GPT-2's pattern. */
  readonly tokenizer?: Tokenizer;
  /** Text of the model card, README.md. Default: no card is written. */
  readonly card?: string;
  /** A head to save with the model. A classifier's head replaces the language-model head. */
  readonly head?: SavedHead;
  /** Function that creates the files of weights and JSON. */
  readonly open?: OpenFile;
}

/**
 * Saves a model to a new folder: config.json, generation_config.json, and model.safetensors or its shards with their
 * index. The folder is written under another name and renamed when all of it is on the disk, so it is never seen half
 * written.
 *
 * transformers' GPT-2 has a bias in every layer, so zeros are written if the model has none.
 *
 * @param path path of the folder, which must not exist or must be empty
 * @throws {ConfigError} when an option is not valid, or transformers does not support the tokenizer
 * @throws {CheckpointError} when the folder exists and is not empty, another process writes it, it cannot be written,
 *   or a weight is too large for F16; nothing is left then
 * @throws {DeviceError} when the device has no memory to transpose a matrix
 * @example
 * ```ts ignore
 * await saveHuggingFace(model, "gpt2-finetuned", { dtype: "BF16" });
 * // in Python: GPT2LMHeadModel.from_pretrained("gpt2-finetuned")
 * ```
 */
export async function saveHuggingFace(model: GPT, path: string, options: SaveHuggingFaceOptions = {}): Promise<void> {
  const { dtype = "F32", maxShardSize = 50e9, vocabularyFrom, tokenizer, card, head, open } = options;
  const type = TYPES[dtype];
  if (!Object.hasOwn(TYPES, dtype)) throw new ConfigError(`dtype is ${dtype}; expected one of ${Object.keys(TYPES)}`);
  if (!(maxShardSize > 0)) {
    throw new ConfigError(`maxShardSize is ${maxShardSize}; expected a positive number of bytes`);
  }
  const vocabulary = Object.entries(tokenizer ? toHuggingFaceTokenizer(tokenizer) : {});
  try {
    await createFolder(path, async (partial) => {
      const { config, generation } = await endsOf(vocabularyFrom, tokenizer);
      const contents = toHuggingFaceConfig(model.config, { dtype: type.torch, ids: config, head });
      await writeJson(`${partial}/config.json`, contents, open);
      await writeJson(`${partial}/generation_config.json`, { _from_model_config: true, ...generation }, open);
      await writeShards(partial, weightsOf(model, dtype, head), { limit: maxShardSize, bytes: type.bytes, open });
      if (card !== undefined) await writeFile(`${partial}/README.md`, [new TextEncoder().encode(card)], open);
      for (const [name, contents] of vocabulary) {
        const file = `${partial}/${name}`;
        if (typeof contents !== "string") await writeJson(file, contents, open);
        else await writeFile(file, [new TextEncoder().encode(contents)], open);
      }
      if (vocabularyFrom !== undefined) await copyVocabulary(vocabularyFrom, partial);
    });
  } catch (error) {
    throw error instanceof CheckpointError || error instanceof DeviceError
      ? error
      : new CheckpointError(`Cannot write ${path}: ${reason(error)}`);
  }
}

type Ids = Readonly<Record<string, unknown>>;

/**
 * The ids of the tokens that begin, end and pad a text, for config.json and generation_config.json. They come from the
 * folder with the vocabulary, else from the tokenizer. Otherwise they are null, because GPT2Config's default would end
 * texts at an ordinary word.
 */
async function endsOf(folder: string | undefined, tokenizer?: Tokenizer): Promise<{ config: Ids; generation: Ids }> {
  const read = async (name: string) =>
    folder !== undefined && await exists(`${folder}/${name}`)
      ? tokenIds(await readJson(`${folder}/${name}`))
      : undefined;
  const own = await read("config.json"), generation = await read("generation_config.json");
  const from = tokenizer ??
    (own || folder === undefined ? undefined : await loadTokenizer(folder).catch(() => undefined));
  const config = own ?? specialIds(from);
  const ends = !own && from ? endIds(from) : []; // the end of a turn and of a text
  return { config, generation: generation ?? { ...config, ...ends.length > 1 && { eos_token_id: ends } } };
}

type Weight = readonly [name: string, tensor: TensorSource];

/** The tensors of the model and of its head. Each is read from the device when it is written. */
function weightsOf(model: GPT, dtype: keyof typeof TYPES, head?: SavedHead): Weight[] {
  const parameters = new Map([...plainParameters(model), ...head?.tensors ?? []]);
  const tieWordEmbeddings = model.config.tieWordEmbeddings || head?.architecture === "GPT2ForSequenceClassification";
  const shapes = [
    ...shapesOf({ ...model.config, bias: true, tieWordEmbeddings }),
    ...head ? headShapes(head, model.config.nEmbd) : [],
  ];
  return shapes.map(([name, shape]): Weight => {
    const stored = CONV1D.test(name) ? shape.toReversed() : shape, parameter = parameters.get(name);
    const data = async () => {
      if (!parameter) return new Float32Array(sizeOf(shape));
      const read = await (CONV1D.test(name) ? turned(parameter) : parameter.data());
      const values = read instanceof Float32Array ? read : new Float32Array(read); // the reference device has f64
      checkRange(name, values, dtype);
      return values;
    };
    return [name, { dtype, shape: stored, data }];
  });
}

/** @throws {CheckpointError} when a finite weight would become infinite */
export function checkRange(name: string, values: Float32Array, dtype: string): void {
  const limit = LIMITS[dtype];
  const place = limit ? values.findIndex((value) => Math.abs(value) >= limit && Math.abs(value) < Infinity) : -1;
  if (place < 0) return;
  throw new CheckpointError(
    `${name} has the weight ${values[place]}, which is too large for ${dtype}; save BF16 or F32`,
  );
}

/** The elements of a matrix (out, in), transposed to (in, out). */
async function turned(weight: Tensor): Promise<NumberArray> {
  const { device, shape: [outputs, inputs] } = weight, y = device.empty([1, inputs, outputs]);
  const wide = untrainable(weight.storage) ? device.tensor(await weight.data(), weight.shape) : weight;
  try {
    {
      using _ = device.scope();
      launch(transpose, { x: wide.alias([1, outputs, inputs]), y });
    }
    return await y.data();
  } finally {
    y.dispose();
    if (wide !== weight) wide.dispose();
  }
}

/**
 * Writes the weights to files of at most `limit` bytes (a larger tensor has a file of its own), and an index if there
 * are several files.
 */
async function writeShards(
  folder: string,
  weights: readonly Weight[],
  { limit, bytes, open }: { limit: number; bytes: number; open?: OpenFile },
): Promise<void> {
  const shards: Weight[][] = [[]], size = ([, { shape }]: Weight) => bytes * sizeOf(shape);
  let filled = 0;
  for (const weight of weights) {
    if (shards.at(-1)!.length > 0 && filled + size(weight) > limit) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(weight);
    filled += size(weight);
  }
  const padded = (n: number) => String(n).padStart(5, "0"), map: Record<string, string> = {};
  for (const [i, shard] of shards.entries()) {
    const part = shards.length > 1 ? `-${padded(i + 1)}-of-${padded(shards.length)}` : "";
    const file = `model${part}.safetensors`;
    await writeSafetensors(`${folder}/${file}`, shard, { metadata: { format: "pt" }, open });
    for (const [name] of shard) map[name] = file;
  }
  if (shards.length === 1) return;
  const elements = weights.reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0);
  const metadata = { total_parameters: elements, total_size: bytes * elements };
  await writeJson(`${folder}/model.safetensors.index.json`, { metadata, weight_map: map }, open);
}

async function copyVocabulary(from: string, to: string): Promise<void> {
  for (const name of VOCABULARY) {
    if (await exists(`${from}/${name}`)) await system.copyFile(`${from}/${name}`, `${to}/${name}`);
  }
}
