/** GPT-2 into a GGUF file, which llama.cpp, Ollama and LM Studio open. See gguf.ts. */
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

/** What llama.cpp calls a file by the type of most of its weights. */
const FILE_TYPES: Record<GgufType, number> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 };

/** How {@linkcode saveGguf} writes. */
export interface SaveGgufOptions {
  /** ASCII characters, or byte pairs with GPT-2's pattern. */
  readonly tokenizer: Tokenizer;
  /** Of the matrices: F32, the default, or with rounding F16, BF16 or Q8_0. Norms, biases and positions are in F32. */
  readonly dtype?: GgufType;
  /** Takes a line, without a newline, on what such a file cannot say. */
  readonly onNote?: (line: string) => void;
  /** How the file is created. */
  readonly open?: OpenFile;
}

/**
 * Writes a model and its tokenizer as llama.cpp's converter would, one tensor at a time, beside `path`, and renames it.
 *
 * Such a model has a bias everywhere, for which zeros are written where there is none, and the tanh approximation of GELU.
 *
 * @throws {ConfigError} when such a file cannot hold the model or its vocabulary, with the reason
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
  if (config.activation === "relu") throw new ConfigError("GGUF has no such GPT-2: its activation is relu, not GELU");
  for (const width of ["nEmbd", "nInner"] as const) {
    if (dtype !== "Q8_0" || config[width] % Q8_0.block === 0) continue;
    throw new ConfigError(
      `q8_0 has blocks of ${Q8_0.block} weights, and ${width} is ${
        config[width]
      }, not a multiple: use float16 or bfloat16`,
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
        return await parameter.device.readStored(parameter.storage) as Uint8Array; // the blocks that it was made of
      }
      const read = await parameter?.data() ?? new Float32Array(sizeOf(shape));
      const values = read instanceof Float32Array ? read : new Float32Array(read); // the reference device's are f64
      checkRange(ours, values, dtype);
      return values;
    };
    yield [name, { dtype, shape, data }];
  }
}
