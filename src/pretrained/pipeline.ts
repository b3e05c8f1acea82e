/** Pipelines as in transformers: `pipeline("text-generation", …)` takes a prompt and returns texts. */
import { createDevice, type DeviceName } from "../device/create.ts";
import type { EndOfTurn } from "../data/chat_template.ts";
import type { Message } from "../data/examples.ts";
import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import type { SequencesOptions } from "../generate/options.ts";
import type { GPT } from "../gpt.ts";
import type { FeatureExtractionPipeline } from "./feature_extraction.ts";
import { loadPretrained, type Pretrained, type PretrainedOptions } from "./load.ts";
import type { PretrainedHead } from "./load_head.ts";
import type { SummarizationPipeline } from "./summarization.ts";
import type { TextClassificationPipeline } from "./text_classification.ts";
import { RandomGenerator } from "../random/mod.ts";
import { type GeneratedToken, generateSequences } from "../generate/generate.ts";
import { spoken } from "../generate/stopping.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** How {@linkcode pipeline} loads its model. */
export interface PipelineOptions extends Partial<Omit<PretrainedOptions, "device">> {
  /** The model's device, or a name for `createDevice`. Default `auto`. */
  readonly device?: Device | DeviceName;
}

/**
 * Options of text generation, with the defaults of transformers' pipeline: `maxNewTokens` 256, `temperature` 0.7 and
 * `topK` 50. `eosTokenId` defaults to the ids in the model's generation_config.json, or else to the tokenizer's
 * `<|endoftext|>`.
 */
export interface TextGenerationOptions extends Omit<SequencesOptions, "tokenizer" | "logprobs" | "topLogprobs"> {
  /** Whether to sample tokens; false takes the most likely token. Default true. */
  readonly doSample?: boolean;
  /** Whether the text begins with the prompt; default true. */
  readonly returnFullText?: boolean;
}
/** Options that make a chat return only the answer, as a text. */
export interface AnswerOptions extends TextGenerationOptions {
  /** Leaves the messages out of the result. */
  readonly returnFullText: false;
}

/** A text generated from a prompt. */
export interface GeneratedText {
  /** The text, with the prompt unless `returnFullText` is false. */ readonly generatedText: string;
}

/** A chat with a generated answer. */
export interface GeneratedChat {
  /** The messages with the assistant's answer. If the last message is the assistant's, the answer continues it. */
  readonly generatedText: Message[];
}

/** The pipeline that `pipeline("text-generation", …)` makes. */
export interface TextGenerationPipeline extends Disposable {
  /**
   * The answer to messages. The model's chat template formats the messages. Special tokens in them are encoded as plain
   * text, and left out of answers.
   */
  (messages: readonly Message[], options: AnswerOptions): Promise<GeneratedText[]>;
  /** The messages with the answer. */
  (messages: readonly Message[], options?: TextGenerationOptions): Promise<GeneratedChat[]>;
  /** The answers to several chats. */
  (chats: readonly (readonly Message[])[], options: AnswerOptions): Promise<GeneratedText[][]>;
  /** Several chats with their answers. */
  (chats: readonly (readonly Message[])[], options?: TextGenerationOptions): Promise<GeneratedChat[][]>;
  /** The texts generated from a prompt: `numReturnSequences` texts, by default one. */
  (prompt: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  /** The texts generated from each of several prompts. */
  (prompts: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  /**
   * Yields one text in pieces as they are generated. The prompt comes first, unless `returnFullText` is false; messages
   * do not.
   */
  stream(prompt: string | readonly Message[], options?: TextGenerationOptions): AsyncGenerator<string, void, void>;
  /** The model. */ readonly model: GPT;
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
  /** Frees the model and closes its device, if the pipeline made them. `using` calls it. */ close(): void;
}

/** The generator for texts without a seed. Its first seed is random; {@linkcode setSeed} replaces it. */
let shared = new RandomGenerator(crypto.getRandomValues(new Uint32Array(1))[0]);

/**
 * Seeds the generator of all pipelines, like transformers' `set_seed`, which makes the texts generated afterwards
 * reproducible.
 *
 * @param seed any integer; its low 32 bits are used
 * @throws {ConfigError} if the seed is not an integer
 */
export function setSeed(seed: number): void {
  if (!Number.isSafeInteger(seed)) throw new ConfigError(`setSeed: ${seed} is not a whole number`);
  shared = new RandomGenerator(seed);
}

/**
 * Makes a text generator, like transformers' `pipeline("text-generation", …)`.
 *
 * With the same seed, weights and tokenizer, it draws the same tokens as transformers, unless PyTorch takes its noise
 * from MKL, as on Intel's processors. Unlike in transformers, a text ends before a stop string, and a text that is
 * longer than the model's block size is cropped as in nanoGPT; see `overflow`.
 *
 * @param task `text-generation`; in other overloads `text-classification` (alias `sentiment-analysis`),
 *   `feature-extraction` or `summarization`
 * @param model a name for `loadPretrained` (`gpt2`, a folder, a ckpt.pt), or a model with its tokenizer
 * @throws {ConfigError} if there is no such task, or no model
 * @throws {CheckpointError} if the model cannot be read
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
export function pipeline(
  task: "text-generation",
  model: string | Pretrained,
  options?: PipelineOptions,
): Promise<TextGenerationPipeline>;
/** Makes a text classifier from a model with a head for labels: a run of finetune, or a Hugging Face folder. */
export function pipeline(
  task: "text-classification" | "sentiment-analysis",
  model?: string | PretrainedHead,
  options?: PipelineOptions,
): Promise<TextClassificationPipeline>;
/** Makes a pipeline that returns a model's last hidden states. */
export function pipeline(
  task: "feature-extraction",
  model: string | Pretrained,
  options?: PipelineOptions,
): Promise<FeatureExtractionPipeline>;
/** Makes a pipeline that summarises texts with GPT-2's prompt "TL;DR:". */
export function pipeline(
  task: "summarization",
  model: string | Pretrained,
  options?: PipelineOptions,
): Promise<SummarizationPipeline>;
export async function pipeline(
  task: PipelineTask,
  model?: string | Pretrained | PretrainedHead,
  options: PipelineOptions = {},
): Promise<Disposable> {
  if (!TASKS.includes(task)) {
    throw new ConfigError(`No pipeline for ${JSON.stringify(task)}, only for ${TASKS.join(", ")}`);
  }
  const labels = task === "text-classification" || task === "sentiment-analysis";
  if (model === undefined) {
    throw new ConfigError(`pipeline(${JSON.stringify(task)}) needs a model${labels ? HOW_TO_TRAIN : ""}`);
  }
  const { device: where = "auto" } = options, own = typeof model === "string" && typeof where === "string";
  if (typeof model !== "string") return await made(task, model, () => {});
  const device = typeof where === "string" ? await createDevice(where) : where;
  let loaded: Pretrained | PretrainedHead | undefined;
  const close = () => {
    loaded?.model.dispose();
    if (loaded && "head" in loaded) loaded.head.dispose();
    if (own) device.close();
  };
  try {
    const how = { inference: true, ...options, device };
    loaded = labels ? await (await import("./load_head.ts")).loadHead(model, how) : await loadPretrained(model, how);
    return await made(task, loaded, close);
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Makes the pipeline of a task. Modules are imported when they are needed, so that a bundle for browsers can leave them
 * out.
 */
async function made(task: PipelineTask, loaded: Pretrained | PretrainedHead, close: () => void): Promise<Disposable> {
  if (task === "text-generation") return textGeneration(loaded, close);
  if (task === "feature-extraction") return (await import("./feature_extraction.ts")).featureExtraction(loaded, close);
  if (task === "summarization") {
    return (await import("./summarization.ts")).summarization(loaded, { close, shared: () => shared });
  }
  if ("head" in loaded) return (await import("./text_classification.ts")).textClassification(loaded, close);
  throw new ConfigError(`${task} needs a model with a head, such as the result of loadHead${HOW_TO_TRAIN}`);
}

const TASKS = [
  "text-generation",
  "text-classification",
  "sentiment-analysis",
  "feature-extraction",
  "summarization",
] as const;
type PipelineTask = typeof TASKS[number];
const HOW_TO_TRAIN =
  "; GPT-2 itself has no labels\nThe command finetune trains a model on rows with a text and a label: " +
  "--task=classify --init_from=gpt2 --data=FILE --out_dir=FOLDER";

type Prompt = string | readonly Message[];

function textGeneration(loaded: Pretrained, close: () => void): TextGenerationPipeline {
  const { model, tokenizer } = loaded;
  async function generate(given: Prompt | readonly Prompt[], options: TextGenerationOptions = {}) {
    const { numReturnSequences: count = 1, returnFullText = true } = options,
      one = typeof given === "string" || isChat(given);
    const prompts = one ? [given] : given, texts: string[][] = [];
    for await (const { sequence, text } of prompts.length > 0 ? await run(loaded, prompts, options) : []) {
      const of = texts[Math.floor(sequence / count)] ??= new Array<string>(count).fill("");
      of[sequence % count] += text;
    }
    const all = prompts.map((prompt, i) =>
      Array.from(
        { length: count },
        (_, n) => ({ generatedText: withPrompt(prompt, texts[i]?.[n] ?? "", returnFullText) }),
      )
    );
    return one ? all[0] : all;
  }
  async function* stream(prompt: Prompt, options: TextGenerationOptions = {}): AsyncGenerator<string, void, void> {
    if ((options.numReturnSequences ?? 1) !== 1) {
      throw new ConfigError(`numReturnSequences is ${options.numReturnSequences}; expected 1 for a stream`);
    }
    if (typeof prompt === "string" && (options.returnFullText ?? true)) yield prompt;
    for await (const { text } of await run(loaded, [prompt], options)) if (text) yield text;
  }
  return Object.assign(generate as unknown as TextGenerationPipeline, {
    stream,
    model,
    tokenizer,
    close,
    [Symbol.dispose]: close,
  });
}

const isChat = (given: readonly unknown[]): given is readonly Message[] =>
  typeof given[0] === "object" && !Array.isArray(given[0]);

/** Whether the last message is the assistant's, which the model then continues. */
const goesOn = (messages: readonly Message[]): boolean => messages.at(-1)?.role === "assistant";

function withPrompt(prompt: Prompt, text: string, full: boolean): string | Message[] {
  if (!full) return text;
  if (typeof prompt === "string") return prompt + text;
  const last = prompt.at(-1)!;
  return goesOn(prompt)
    ? [...prompt.slice(0, -1), { ...last, content: last.content + text }]
    : [...prompt, { role: "assistant", content: text }];
}

const END = "<|endoftext|>";

/**
 * Generates tokens after each prompt. An empty prompt becomes `<|endoftext|>`, which comes before every text in GPT-2's
 * training.
 */
async function run(
  { model, tokenizer, eosTokenIds, chatTemplate }: Pretrained,
  prompts: readonly Prompt[],
  { doSample = true, returnFullText: _, ...options }: TextGenerationOptions,
): Promise<AsyncGenerator<GeneratedToken, void, void>> {
  const { maxLength, maxNewTokens = maxLength === undefined ? 256 : undefined } = options;
  const { temperature = 0.7, topK = 50, seed, generator = seed === undefined ? shared : undefined } = options;
  const end = tokenizer.specialTokens?.get(END),
    ends = [...eosTokenIds ?? [end ?? []].flat()],
    ids: ArrayLike<number>[] = [];
  let turn: EndOfTurn | undefined;
  for (const prompt of prompts) {
    if (typeof prompt === "string") {
      ids.push(prompt === "" && end !== undefined ? [end] : tokenizer.encode(prompt, { allowedSpecial: "all" }));
      continue;
    }
    if (!chatTemplate) {
      throw new ConfigError(
        "Messages need a chat template, and the model has none, because it was not fine-tuned on conversations",
      );
    }
    const how = goesOn(prompt) ? { continueFinalMessage: true } : { addGenerationPrompt: true };
    ids.push(await chatTemplate.ids(tokenizer, prompt, { ...how, contents: "text" }));
    turn ??= await chatTemplate.endOfTurn(tokenizer);
  }
  const stopStrings = options.stopStrings ?? turn?.strings;
  return generateSequences(model, ids, {
    ...options,
    stopStrings,
    maxNewTokens,
    temperature: doSample ? temperature : 0,
    topK,
    eosTokenId: options.eosTokenId ?? [...new Set([...turn?.ids ?? [], ...ends])],
    generator,
    tokenizer: turn ? spoken(tokenizer, stopStrings) : tokenizer,
  });
}
