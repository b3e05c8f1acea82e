/** A prompt in, texts out: the `pipeline` that people know from transformers. */
import { createDevice, type DeviceName } from "../device/create.ts";
import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import type { SequencesOptions } from "../generate/options.ts";
import type { GPT } from "../gpt.ts";
import { loadPretrained, type Pretrained, type PretrainedOptions } from "./load.ts";
import { RandomGenerator } from "../random/mod.ts";
import { type GeneratedToken, generateSequences } from "../generate/generate.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** How {@linkcode pipeline} loads its model. */
export interface PipelineOptions extends Partial<Omit<PretrainedOptions, "device">> {
  /** Where the model is loaded to: a device, or a name as `createDevice` takes it. Default `auto`. */
  readonly device?: Device | DeviceName;
}

/**
 * Defaults are those of transformers' pipeline: `maxNewTokens` 256, `temperature` 0.7, `topK` 50, and the tokenizer's
 * `<|endoftext|>` as `eosTokenId`.
 */
export interface TextGenerationOptions extends Omit<SequencesOptions, "tokenizer" | "logprobs" | "topLogprobs"> {
  /** Whether tokens are drawn; false takes the likeliest. Default true. */
  readonly doSample?: boolean;
  /** Whether the text begins with the prompt; default true. */
  readonly returnFullText?: boolean;
}

/** One text of those that a prompt led to. */
export interface GeneratedText {
  /** With the prompt, unless that is left out. */ readonly generatedText: string;
}

/** What {@linkcode pipeline} gives. */
export interface TextGenerationPipeline extends Disposable {
  /** As many texts as `numReturnSequences` says, one unless given. */
  (prompt: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  /** The same for each of several prompts, one after the other. */
  (prompts: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  /** One text, in pieces as they come; the prompt first, unless `returnFullText` is false. */
  stream(prompt: string, options?: TextGenerationOptions): AsyncGenerator<string, void, void>;
  /** What generates. */ readonly model: GPT;
  /** What its ids mean. */ readonly tokenizer: Tokenizer;
  /** Frees the model and closes its device, where the pipeline has made them: `using` calls it. */ close(): void;
}

/** What text is generated with when no seed is given: another one in each process until {@linkcode setSeed}. */
let shared = new RandomGenerator(crypto.getRandomValues(new Uint32Array(1))[0]);

/**
 * Seeds the generator of all pipelines, as transformers' `set_seed`: texts drawn after it are the same each time.
 *
 * @param seed any integer, of which the low 32 bits count
 * @throws {ConfigError} when it is no integer
 */
export function setSeed(seed: number): void {
  if (!Number.isSafeInteger(seed)) throw new ConfigError(`setSeed: ${seed} is no whole number`);
  shared = new RandomGenerator(seed);
}

/**
 * Makes a generator of text, as transformers' `pipeline("text-generation", …)`.
 *
 * With the same seed, weights and tokenizer it draws the tokens that transformers does, where PyTorch's noise is its own (on
 * Intel's processors it comes from MKL). Unlike there, a text ends before a stop string, and one that is longer than the model's block size is
 * cropped as nanoGPT does, see `overflow`.
 *
 * @param task only `text-generation`
 * @param model what `loadPretrained` takes (`gpt2`, a folder, a ckpt.pt), or a model with its tokenizer
 * @throws {ConfigError} when there is no such task, or no model
 * @throws {CheckpointError} when the model cannot be read
 * @example
 * ```ts ignore
 * const generator = await pipeline("text-generation", "gpt2");
 * setSeed(42);
 * await generator("Hello, I'm a language model,", { maxLength: 30, numReturnSequences: 5 }); // [{ generatedText }, …]
 * ```
 * @example
 * ```ts
 * import { createDevice, GPT, pipeline, setSeed } from "@nanogpt/ts";
 * import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
 *
 * const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText("abcde ");
 * const model = new GPT({ vocabSize: 6, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * const generator = await pipeline("text-generation", { model, tokenizer });
 * setSeed(42);
 * for (const { generatedText } of await generator("abc", { maxLength: 8, numReturnSequences: 2 })) console.log(generatedText);
 * device.close();
 * ```
 */
export async function pipeline(
  task: "text-generation",
  model: string | Pretrained,
  options: PipelineOptions = {},
): Promise<TextGenerationPipeline> {
  if (task !== "text-generation") {
    throw new ConfigError(`No pipeline for ${JSON.stringify(task)}, only for text-generation`);
  }
  const { device: where = "auto" } = options, own = typeof model === "string" && typeof where === "string";
  if (typeof model !== "string") return textGeneration(model, () => {});
  const device = typeof where === "string" ? await createDevice(where) : where;
  try {
    const loaded = await loadPretrained(model, { inference: true, ...options, device });
    return textGeneration(loaded, () => {
      loaded.model.dispose();
      if (own) device.close();
    });
  } catch (error) {
    if (own) device.close();
    throw error;
  }
}

function textGeneration({ model, tokenizer }: Pretrained, close: () => void): TextGenerationPipeline {
  const tokens = (prompts: readonly string[], options: TextGenerationOptions) =>
    run(model, tokenizer, prompts, options);
  async function generate(prompt: string | readonly string[], options: TextGenerationOptions = {}) {
    const { numReturnSequences: count = 1, returnFullText = true } = options, one = typeof prompt === "string";
    const prompts = one ? [prompt] : prompt, given = tokens(prompts, options); // refuses what cannot be before there is a place
    const texts: string[][] = [];
    for await (const { sequence, text } of prompts.length > 0 ? given : []) {
      const of = texts[Math.floor(sequence / count)] ??= new Array<string>(count).fill("");
      of[sequence % count] += text;
    }
    const all = prompts.map((prompt, i) =>
      Array.from({ length: count }, (_, n) => ({
        generatedText: (returnFullText ? prompt : "") + (texts[i]?.[n] ?? ""),
      }))
    );
    return one ? all[0] : all;
  }
  async function* stream(prompt: string, options: TextGenerationOptions = {}): AsyncGenerator<string, void, void> {
    if ((options.numReturnSequences ?? 1) !== 1) {
      throw new ConfigError(`numReturnSequences is ${options.numReturnSequences}; a stream is of one text`);
    }
    if (options.returnFullText ?? true) yield prompt;
    for await (const { text } of tokens([prompt], options)) if (text) yield text;
  }
  return Object.assign(generate as TextGenerationPipeline, {
    stream,
    model,
    tokenizer,
    close,
    [Symbol.dispose]: close,
  });
}

const END = "<|endoftext|>";

/** The tokens after each prompt. An empty one is the end of the text before, as GPT-2 was trained. */
function run(
  model: GPT,
  tokenizer: Tokenizer & { readonly specialTokens?: ReadonlyMap<string, number> },
  prompts: readonly string[],
  { doSample = true, returnFullText: _, ...options }: TextGenerationOptions,
): AsyncGenerator<GeneratedToken, void, void> {
  const { maxLength, maxNewTokens = maxLength === undefined ? 256 : undefined } = options;
  const { temperature = 0.7, topK = 50, seed, generator = seed === undefined ? shared : undefined } = options;
  const end = tokenizer.specialTokens?.get(END), { eosTokenId = end } = options;
  const ids = prompts.map((prompt) =>
    prompt === "" && end !== undefined ? [end] : tokenizer.encode(prompt, { allowedSpecial: "all" })
  );
  return generateSequences(model, ids, {
    ...options,
    maxNewTokens,
    temperature: doSample ? temperature : 0,
    topK,
    eosTokenId,
    generator,
    tokenizer,
  });
}
