/**
 * Loads a GPT-2 from a GGUF file in the format of llama.cpp's converter, whose tensor names are in its
 * src/models/gpt2.cpp.
 *
 * Matrices are stored (out, in), like ours. llama.cpp's GPT-2 has a bias in every layer and the tanh approximation of
 * GELU. Two keys, which only this package reads, mark a model that has the exact GELU or no biases (they are stored as
 * zeros). See gguf_save.ts for writing.
 */
import { CheckpointError, ConfigError } from "../errors.ts";
import { ACTIVATIONS, type GPT, type GPTConfig } from "../gpt.ts";
import { owned } from "../files/files.ts";
import { GgufFile } from "../files/gguf.ts";
import { shown, some } from "../files/shown.ts";
import { sizeOf } from "../engine/tensor.ts";
import { ggufTokenizer } from "../tokenizer/gguf.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { EMBEDDINGS, HEAD, shapesOf } from "./nanogpt_model.ts";
import { loadModel, type LoadOptions, noteUnused, readOnto, sameElements, storedIn } from "./tensors.ts";

/** Metadata keys that only this package writes and reads. */
export const ACTIVATION = "nanogpt.activation", BIAS = "nanogpt.bias";

const MODULES: Readonly<Record<string, string>> = {
  ...{ "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm" },
  ...{ "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output" },
  ...{ "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "lm_head": "output" },
};

/** GGUF's name of a parameter: `blk.0.attn_qkv.weight` for `transformer.h.0.attn.c_attn.weight`. */
export function ggufName(name: string): string {
  const [, layer, module, part] = /^(?:transformer\.h\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name)!;
  return `${layer === undefined ? "" : `blk.${layer}.`}${MODULES[module]}.${part}`;
}

/**
 * A GPT-2 in an open GGUF file. Sizes, names and shapes are checked when it is opened; weights are read by
 * {@linkcode GgufModel.load}.
 *
 * @example
 * ```ts ignore
 * using file = await GgufModel.open("model.gguf");
 * const model = await file.model({ device }), tokenizer = file.tokenizer();
 * ```
 */
export class GgufModel implements Disposable {
  private constructor(
    /** The file; its {@linkcode GgufFile.readBytes} reads weights as they are stored, such as the blocks of Q8_0. */
    readonly file: GgufFile,
    /** The model's config. */
    readonly config: GPTConfig,
  ) {}

  /**
   * Opens a file and checks everything except the weights.
   *
   * @param options.onNote called with a line about tensors that the model does not use
   * @throws {CheckpointError} when the file is missing, damaged, or has an architecture other than gpt2
   */
  static async open(path: string, { onNote }: { onNote?: (line: string) => void } = {}): Promise<GgufModel> {
    return await owned(await GgufFile.open(path), async (file) => {
      const config = { ...configOf(file), tieWordEmbeddings: await isTied(file) };
      checkTensors(config, file, onNote);
      if (!config.bias) await checkZeros(file);
      return new GgufModel(file, config);
    });
  }

  /**
   * The tokenizer in the file.
   * @throws {CheckpointError} when it is not supported, or the number of tokens differs from the number of embeddings
   */
  tokenizer(): Tokenizer {
    const { path, metadata } = this.file, tokens = metadata.get("tokenizer.ggml.tokens")?.value;
    const tokenizer = ggufTokenizer(this.file), count = Array.isArray(tokens) ? tokens.length : 0;
    if (count === this.config.vocabSize) return tokenizer;
    throw new CheckpointError(
      `${path} is damaged: it has ${count} tokens, but token_embd.weight has ${this.config.vocabSize} rows`,
    );
  }

  /**
   * Checks that the weights can be trained.
   * @throws {ConfigError} when a tensor is stored as Q8_0; the message names it
   */
  checkTrainable(): void {
    const [name] = [...this.file.tensors].find(([, { dtype }]) => dtype === "Q8_0") ?? [];
    if (name === undefined) return;
    throw new ConfigError(
      `${this.file.path} is in q8_0 (${shown(name)}), which is too coarse to continue training\n` +
        "Use f32: convert the original model with --dtype=float32, or train from it directly; " +
        "or train a LoRA adapter on this file (applyLora)",
    );
  }

  /**
   * A new model with the file's weights, converted to the type `options.weights`. With `q8_0`, Q8_0 blocks are copied.
   * @throws {CheckpointError} as {@linkcode load}
   * @throws {DeviceError} when the model does not fit into the device's memory
   */
  model(options: LoadOptions): Promise<GPT> {
    return loadModel(this.config, options, (model) => this.load(model));
  }
  /** Reads the weights into a model with this config. @throws {CheckpointError} when a weight is not finite */
  async load(model: GPT): Promise<void> {
    for (const [name, { storage }] of model.namedParameters()) {
      const stored = storedIn(this.file, ggufName(name));
      await readOnto(storage, { ...stored, bytes: (begin, out) => this.file.readBytes(stored.name, begin, out) });
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.file.close();
  }
}

function configOf({ path, metadata, tensors }: GgufFile): GPTConfig {
  const said = (key: string) => metadata.get(key)?.value, architecture = said("general.architecture");
  if (architecture !== "gpt2") {
    const name = architecture === undefined ? "none" : shown(`${architecture}`);
    throw new CheckpointError(`${path}: general.architecture is ${name}, but only gpt2 is supported`);
  }
  const wrong = (key: string, expected: string) =>
    new CheckpointError(`${path} is damaged: ${key} is ${shown(`${said(key)}`)}, expected ${expected}`);
  const count = (key: string, most = 2 ** 31 - 1): number => {
    const value = said(`gpt2.${key}`);
    if (typeof value === "number" && Number.isInteger(value) && value > 0 && value <= most) return value;
    throw wrong(`gpt2.${key}`, `a whole number from 1 to ${most}`);
  };
  const EPSILON = "gpt2.attention.layer_norm_epsilon", epsilon = said(EPSILON), HEADS = "attention.head_count";
  if (!(typeof epsilon === "number" && epsilon > 0 && epsilon <= 1)) throw wrong(EPSILON, "a number up to 1");
  const nEmbd = count("embedding_length"), nHead = count(HEADS);
  if (nEmbd % nHead !== 0) throw wrong(`gpt2.${HEADS}`, `a divisor of embedding_length, ${nEmbd}`);
  if ((said(`gpt2.${HEADS}_kv`) ?? nHead) !== nHead) throw wrong(`gpt2.${HEADS}_kv`, `${nHead}, equal to head_count`);
  const activation = said(ACTIVATION) ?? "gelu_new", bias = said(BIAS) ?? true;
  if (!Object.hasOwn(ACTIVATIONS, `${activation}`)) throw wrong(ACTIVATION, Object.keys(ACTIVATIONS).join(" or "));
  if (typeof bias !== "boolean") throw wrong(BIAS, "true or false");
  return {
    blockSize: count("context_length"),
    vocabSize: tensors.get(ggufName(EMBEDDINGS))?.shape[0] ?? 1,
    nLayer: count("block_count", tensors.size), // rejects an absurd number before a model of that size is built
    nHead,
    nEmbd,
    nInner: count("feed_forward_length"),
    dropout: 0,
    bias,
    activation: activation as keyof typeof ACTIVATIONS,
    layerNormEpsilon: shortest(epsilon),
  };
}

/** The decimal with the fewest digits that f32 rounds to this value: 1e-5 is stored as 0.000009999999747378752. */
function shortest(value: number): number {
  const digits = [1, 2, 3, 4, 5, 6, 7, 8].find((n) => Math.fround(Number(value.toPrecision(n))) === value);
  return digits ? Number(value.toPrecision(digits)) : value;
}

/** Whether the head is tied: the file has no weights for it, or a copy of the embeddings. */
async function isTied(file: GgufFile): Promise<boolean> {
  const [head, embeddings] = [HEAD, EMBEDDINGS].map((name) => file.tensors.get(ggufName(name)));
  if (!head) return true;
  if (`${head.shape}` !== `${embeddings?.shape}`) return false;
  const [left, right] = [HEAD, EMBEDDINGS].map((name) => storedIn(file, ggufName(name)));
  return await sameElements(left, right, sizeOf(head.shape));
}

/** Checks the tensors' names and shapes. @throws {CheckpointError} when a tensor is missing or has another shape */
function checkTensors(config: GPTConfig, { path, tensors }: GgufFile, onNote?: (line: string) => void): void {
  const missing: string[] = [], wrong: string[] = [], expected = new Set<string>([ggufName(HEAD)]);
  for (const [ours, shape] of shapesOf({ ...config, bias: true })) {
    const name = ggufName(ours), tensor = tensors.get(name);
    expected.add(name);
    if (!tensor) missing.push(name);
    else if (`${tensor.shape}` !== `${shape}`) wrong.push(`${name} is [${tensor.shape}], expected [${shape}]`);
  }
  if (missing.length > 0) throw new CheckpointError(`${path} is not the gpt2 of its metadata: no ${some(missing)}`);
  if (wrong.length > 0) throw new CheckpointError(`${path} is not the gpt2 of its metadata: ${some(wrong)}`);
  noteUnused([...tensors.keys()].filter((name) => !expected.has(name)), { parameters: expected, path, onNote });
}

/**
 * Checks the biases of a model without biases.
 * @throws {CheckpointError} when one is not zero, because it would be lost
 */
async function checkZeros(file: GgufFile): Promise<void> {
  for (const name of file.tensors.keys()) {
    if (!name.endsWith(".bias") || (await file.readTensor(name)).every((value) => value === 0)) continue;
    throw new CheckpointError(`${file.path} is damaged: ${BIAS} is false, but ${shown(name)} is not all zeros`);
  }
}
