/** GPT-2 into a folder of Hugging Face's transformers, which opens it with `GPT2LMHeadModel.from_pretrained(path)`. */
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

/** What PyTorch calls the types that weights are saved in, and how many bytes an element takes. */
const TYPES = {
  F32: { torch: "float32", bytes: 4 },
  F16: { torch: "float16", bytes: 2 },
  BF16: { torch: "bfloat16", bytes: 2 },
};
/** From here on f32 rounds to infinity in F16; Q8_0's scale is an F16, and the largest weight 127 times that. */
const LIMITS: Readonly<Record<string, number>> = { F16: 65520, Q8_0: 127 * 65520 };
/** What transformers reads a vocabulary from. */
const VOCABULARY = [
  ...["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
  ...["vocab.json", "merges.txt", "chat_template.jinja"],
];

/** How {@linkcode saveHuggingFace} writes. */
export interface SaveHuggingFaceOptions {
  /** Of the weights: F32, the default, or with rounding F16 or BF16. */
  readonly dtype?: "F32" | "F16" | "BF16";
  /** Bytes of weights from which on there are several files and an index; default 50e9, as in transformers. */
  readonly maxShardSize?: number;
  /** A folder whose vocabulary, as far as it has one, is copied beside the weights, with the ids at which a text ends. */
  readonly vocabularyFrom?: string;
  /** A tokenizer to write instead: one of characters, or of byte pairs with GPT-2's pattern. */
  readonly tokenizer?: Tokenizer;
  /** The text of README.md, the model card. Default: none is written. */
  readonly card?: string;
  /** A head to be saved with the model; that of a classifier takes the place of the language model's. */
  readonly head?: SavedHead;
  /** How files of weights and JSON are created. */
  readonly open?: OpenFile;
}

/**
 * Writes config.json, generation_config.json and model.safetensors, or its shards and their index, into a new folder. It has
 * another name until all of it is on the disk: who finds the folder finds it whole.
 *
 * GPT-2 has a bias everywhere: for a model without, zeros are written.
 *
 * @param path of the folder, which must not be there, or be empty
 * @throws {ConfigError} when an option has no such value, or transformers has no such tokenizer
 * @throws {CheckpointError} when the folder is there, another process writes it, the disk refuses, or a weight is too large for F16; nothing is left then
 * @throws {DeviceError} when the device has no room to turn a matrix
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
  if (!(maxShardSize > 0)) throw new ConfigError(`maxShardSize is ${maxShardSize}; expected a number of bytes above 0`);
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
 * The ids at which transformers begins, ends and pads a text, for both configs: those of the folder that the vocabulary is from,
 * else the tokenizer's, else null, for another default would end texts at a word.
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
  const ends = !own && from ? endIds(from) : []; // a turn's and a text's
  return { config, generation: generation ?? { ...config, ...ends.length > 1 && { eos_token_id: ends } } };
}

type Weight = readonly [name: string, tensor: TensorSource];

/** The tensors of the model and of its head, each read from the device when it is its turn. */
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
      const values = read instanceof Float32Array ? read : new Float32Array(read); // the reference device's are f64
      checkRange(name, values, dtype);
      return values;
    };
    return [name, { dtype, shape: stored, data }];
  });
}

/** @throws {CheckpointError} when a finite one would become infinite */
export function checkRange(name: string, values: Float32Array, dtype: string): void {
  const limit = LIMITS[dtype];
  const place = limit ? values.findIndex((value) => Math.abs(value) >= limit && Math.abs(value) < Infinity) : -1;
  if (place < 0) return;
  throw new CheckpointError(`${name} has the weight ${values[place]}, which ${dtype} cannot hold; save BF16 or F32`);
}

/** The elements of a matrix (out, in) as (in, out). */
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

/** As many files as it takes for none to be larger than `limit`, but for a single larger tensor; and an index where they are more. */
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
