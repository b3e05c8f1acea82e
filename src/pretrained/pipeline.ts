/** A prompt in, texts out: the `pipeline` that people know from transformers. */
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
  /** Where the model is loaded to: a device, or a name as `createDevice` takes it. Default `auto`. */
  readonly device?: Device | DeviceName;
}

/**
 * Defaults are those of transformers' pipeline: `maxNewTokens` 256, `temperature` 0.7, `topK` 50, and as `eosTokenId` the tokens at
 * which the model's texts end: those of its generation_config.json, or the tokenizer's `<|endoftext|>`.
 */
export interface TextGenerationOptions extends Omit<SequencesOptions, "tokenizer" | "logprobs" | "topLogprobs"> {
  /** Whether tokens are drawn; false takes the likeliest. Default true. */
  readonly doSample?: boolean;
  /** Whether the text begins with the prompt; default true. */
  readonly returnFullText?: boolean;
}
/** Of a chat, the answer alone as a text. */
export interface AnswerOptions extends TextGenerationOptions {
  /** What asks for it. */
  readonly returnFullText: false;
}

/** One text of those that a prompt led to. */
export interface GeneratedText {
  /** With the prompt, unless that is left out. */ readonly generatedText: string;
}

/** One of the chats that messages led to. */
export interface GeneratedChat {
  /** The messages, and the assistant's after them; where the last one was the assistant's already, it goes on. */
  readonly generatedText: Message[];
}

/** What {@linkcode pipeline} gives. */
export interface TextGenerationPipeline extends Disposable {
  /** Of messages the answer. The model's chat template writes them; special tokens in them are ordinary text, and in answers left out. */
  (messages: readonly Message[], options: AnswerOptions): Promise<GeneratedText[]>;
  /** The messages with the answer. */
  (messages: readonly Message[], options?: TextGenerationOptions): Promise<GeneratedChat[]>;
  /** The answers to several chats. */
  (chats: readonly (readonly Message[])[], options: AnswerOptions): Promise<GeneratedText[][]>;
  /** Several chats with their answers. */
  (chats: readonly (readonly Message[])[], options?: TextGenerationOptions): Promise<GeneratedChat[][]>;
  /** As many texts as `numReturnSequences` says, one unless given. */
  (prompt: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  /** The same for each of several prompts, one after the other. */
  (prompts: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  /** One text, in pieces as they come; the prompt first, unless `returnFullText` is false. Of messages the answer alone. */
  stream(prompt: string | readonly Message[], options?: TextGenerationOptions): AsyncGenerator<string, void, void>;
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
 * @param task `text-generation`; or, by the other signatures, `text-classification` (alias `sentiment-analysis`),
 * `feature-extraction` or `summarization`
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
export function pipeline(
  task: "text-generation",
  model: string | Pretrained,
  options?: PipelineOptions,
): Promise<TextGenerationPipeline>;
/** Makes a classifier of texts, of a model with a head for labels: a run of finetune, or a folder of transformers'. */
export function pipeline(
  task: "text-classification" | "sentiment-analysis",
  model?: string | PretrainedHead,
  options?: PipelineOptions,
): Promise<TextClassificationPipeline>;
/** Makes what gives a model's last hidden state. */
export function pipeline(
  task: "feature-extraction",
  model: string | Pretrained,
  options?: PipelineOptions,
): Promise<FeatureExtractionPipeline>;
/** Makes what writes summaries, as GPT-2 does. */
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

/** What is imported when it is needed: a browser's bundle has text generation alone. */
async function made(task: PipelineTask, loaded: Pretrained | PretrainedHead, close: () => void): Promise<Disposable> {
  if (task === "text-generation") return textGeneration(loaded, close);
  if (task === "feature-extraction") return (await import("./feature_extraction.ts")).featureExtraction(loaded, close);
  if (task === "summarization") {
    return (await import("./summarization.ts")).summarization(loaded, { close, shared: () => shared });
  }
  if ("head" in loaded) return (await import("./text_classification.ts")).textClassification(loaded, close);
  throw new ConfigError(`${task} needs a model with a head, as loadHead gives it${HOW_TO_TRAIN}`);
}

const TASKS = [
  "text-generation",
  "text-classification",
  "sentiment-analysis",
  "feature-extraction",
  "summarization",
] as const;
type PipelineTask = typeof TASKS[number];
const HOW_TO_TRAIN = "; GPT-2 alone knows no labels\nThis trains one, on rows with a text and a label: " +
  "deno task finetune --task=classify --init_from=gpt2 --data=FILE --out_dir=FOLDER";

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
      throw new ConfigError(`numReturnSequences is ${options.numReturnSequences}; a stream is of one text`);
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

/** Whether the model goes on with a message of the assistant's. */
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

/** The tokens after each prompt. An empty one is the end of the text before, as GPT-2 was trained. */
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
      throw new ConfigError("Messages need a chat template, and the model has none: it was not tuned to chats");
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
