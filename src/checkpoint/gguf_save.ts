/** Saves a GPT-2 as a GGUF file, which llama.cpp, Ollama and LM Studio can load. See gguf.ts. */
import { sizeOf } from "../engine/tensor.ts";
import { ConfigError } from "../errors.ts";
import type { OpenFile } from "../files/files.ts";
import { type GgufSource, type GgufType, type WritableValue, writeGguf } from "../files/gguf.ts";
import type { GPT } from "../gpt.ts";
import { toGgufTokenizer } from "../tokenizer/gguf.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { Q8_0 } from "../engine/q8_0.ts";
import { ACTIVATION, BIAS, ggufName } from "./gguf.ts";
import { checkRange } from "./hugging_face_save.ts";
import { shapesOf } from "./nanogpt_model.ts";
import { plainParameters } from "./tensors.ts";

/** llama.cpp's number for the type of most of a file's weights (`general.file_type`). */
const FILE_TYPES: Record<GgufType, number> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 };

/** Options of {@linkcode saveGguf}. */
export interface SaveGgufOptions {
  /** The model's tokenizer: ASCII characters, or byte pairs with GPT-2's pattern. */
  readonly tokenizer: Tokenizer;
  /**
   * Type of the matrices: F32 (default), or rounded to F16, BF16 or Q8_0. Norms, biases and positions are always F32.
   */
  readonly dtype?: GgufType;
  /** Called with a line about information that a GGUF file cannot hold. */
  readonly onNote?: (line: string) => void;
  /** Function that creates the file. */
  readonly open?: OpenFile;
}

/**
 * Saves a model and its tokenizer in the format of llama.cpp's converter. The file is written under another name, one
 * tensor at a time, and then renamed to `path`.
 *
 * llama.cpp's GPT-2 has a bias in every layer, so zeros are written if the model has none. It computes the tanh
 * approximation of GELU.
 *
 * @throws {ConfigError} when the format does not support the model or its vocabulary; the message says why
 * @throws {CheckpointError} when the file cannot be written, or a weight is too large for the type
 * @example
 * ```ts ignore
 * await saveGguf("model.gguf", model, { tokenizer, dtype: "Q8_0" });
 * ```
 */
export async function saveGguf(path: string, model: GPT, options: SaveGgufOptions): Promise<void> {
  const { tokenizer, dtype = "F32", onNote, open } = options, { config } = model;
  if (!Object.hasOwn(FILE_TYPES, dtype)) {
    throw new ConfigError(`saveGguf: dtype is ${dtype}; expected one of ${Object.keys(FILE_TYPES).join(", ")}`);
  }
  if (config.activation === "relu") throw new ConfigError("GGUF's GPT-2 has the activation GELU, not relu");
  for (const width of ["nEmbd", "nInner"] as const) {
    if (dtype !== "Q8_0" || config[width] % Q8_0.block === 0) continue;
    throw new ConfigError(
      `q8_0 has blocks of ${Q8_0.block} weights, but ${width}=${
        config[width]
      } is not a multiple of that; use float16 or bfloat16`,
    );
  }
  const uint = (key: string, value: number): [string, WritableValue] => [key, { type: "uint32", value }];
  const metadata: (readonly [string, WritableValue])[] = [
    ["general.architecture", { type: "string", value: "gpt2" }],
    uint("general.file_type", FILE_TYPES[dtype]),
    uint("gpt2.block_count", config.nLayer),
    uint("gpt2.context_length", config.blockSize),
    uint("gpt2.embedding_length", config.nEmbd),
    uint("gpt2.feed_forward_length", config.nInner),
    uint("gpt2.attention.head_count", config.nHead),
    ["gpt2.attention.layer_norm_epsilon", { type: "float32", value: config.layerNormEpsilon }],
    ...config.activation === "gelu" ? [[ACTIVATION, { type: "string", value: "gelu" }] as const] : [],
    ...config.bias ? [] : [[BIAS, { type: "bool", value: false }] as const],
    ...toGgufTokenizer(tokenizer, config.vocabSize, { onNote }),
  ];
  await writeGguf(path, { metadata, tensors: tensorsOf(model, dtype) }, { open });
}

function* tensorsOf(model: GPT, matrices: GgufType): Generator<[string, GgufSource]> {
  const parameters = plainParameters(model);
  for (const [ours, shape] of shapesOf({ ...model.config, bias: true })) {
    const name = ggufName(ours), parameter = parameters.get(ours);
    const dtype = shape.length === 2 && !ours.includes(".wpe.") ? matrices : "F32";
    const data = async () => {
      if (dtype === "Q8_0" && parameter?.dtype === "q8_0") {
        return await parameter.device.readStored(parameter.storage) as Uint8Array; // already Q8_0: copy the blocks
      }
      const read = await parameter?.data() ?? new Float32Array(sizeOf(shape));
      const values = read instanceof Float32Array ? read : new Float32Array(read); // the reference device has f64
      checkRange(ours, values, dtype);
      return values;
    };
    yield [name, { dtype, shape, data }];
  }
}
