/** Chats to prompts: the roles and contents that requests have, the model's template, and where a turn ends. */
import type { ChatTemplate, EndOfTurn } from "../data/chat_template.ts";
import type { Message } from "../data/examples.ts";
import { DataError } from "../errors.ts";
import { shown } from "../files/shown.ts";
import type { GenerateRequest, ServedModel } from "./engine_api.ts";
import { type ApiError, invalid } from "./errors.ts";
import { type Sampling, samplingOf } from "./sampling.ts";
import { checkLength } from "./texts.ts";

/** A chat that can be answered. */
export type ChatPrompt = Omit<GenerateRequest, "count">;

/**
 * What the engine is asked for.
 *
 * @param at the parameter that holds the messages
 * @param length how many tokens at most, and the parameter that says so; without it up to what the model sees
 * @throws {ApiError} 400 where the model has no template, the template refuses the messages, or they are too long
 */
export async function chatPrompt(
  model: ServedModel,
  messages: readonly Message[],
  body: Sampling,
  { at, most }: { readonly at: string; readonly most?: number },
): Promise<ChatPrompt> {
  const { id, template, tokenizer, vocabSize, blockSize } = model;
  if (!template) {
    const why = `${id} was not tuned to chats, and has no chat template: use /v1/completions`;
    throw invalid("model", why, "unsupported_model");
  }
  const shape = samplingOf(body, vocabSize);
  try {
    const { ids: ends, strings } = await endOfTurn(template, model);
    const prompt = await template.ids(tokenizer, messages, { addGenerationPrompt: true, contents: "text" });
    checkLength(model, prompt.length, most ?? 1, at);
    const stray = prompt.find((token) => token >= vocabSize);
    if (stray !== undefined) throw invalid(at, `${at}: ${id} has no token ${stray}, which its tokenizer has`);
    return {
      ...{ ...shape, model: id, prompt, maxNewTokens: most ?? blockSize - prompt.length, spoken: true },
      stop: [...shape.stop, ...strings],
      endIds: ends.filter((token) => token < vocabSize),
    };
  } catch (error) {
    throw error instanceof DataError ? refusal(error, id, at) : error;
  }
}

/**
 * What a template tells by `raise_exception` is meant for whoever wrote the messages; what else went wrong with it is not told. A
 * character that the vocabulary lacks ends here too.
 */
function refusal({ message }: DataError, id: string, at: string): ApiError {
  const [, says] = / says: ([^]*)$/.exec(message) ?? [];
  if (says !== undefined) {
    return invalid(at, `${at}: the chat template of ${id} says: ${shown(says)}`, "template_refused");
  }
  const text = `${at}: the chat template of ${id} does not take these messages, or its vocabulary not their characters`;
  return invalid(at, text, "template_failed");
}

const ends = new WeakMap<ChatTemplate, Promise<EndOfTurn>>();
function endOfTurn(template: ChatTemplate, { tokenizer }: ServedModel): Promise<EndOfTurn> {
  let end = ends.get(template);
  if (!end) {
    ends.set(template, end = template.endOfTurn(tokenizer));
    end.catch(() => ends.delete(template));
  }
  return end;
}
