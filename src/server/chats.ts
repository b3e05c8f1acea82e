/** Turns chats into prompts by the model's template, and finds the tokens that end a turn. */
import type { ChatTemplate, EndOfTurn } from "../data/chat_template.ts";
import type { Message } from "../data/examples.ts";
import { DataError } from "../errors.ts";
import { shown } from "../files/shown.ts";
import type { GenerateRequest, ServedModel } from "./engine_api.ts";
import { type ApiError, invalid } from "./errors.ts";
import { type Sampling, samplingOf } from "./sampling.ts";
import { checkLength } from "./texts.ts";

/** The engine's request for an answer in a chat. */
export type ChatPrompt = Omit<GenerateRequest, "count">;

/**
 * Makes the engine's request for a chat.
 *
 * @param at the parameter that holds the messages
 * @param most maximum number of tokens of the answer; default: up to the model's context length
 * @throws {ApiError} 400 if the model has no template, the template refuses the messages, or they are too long
 */
export async function chatPrompt(
  model: ServedModel,
  messages: readonly Message[],
  body: Sampling,
  { at, most }: { readonly at: string; readonly most?: number },
): Promise<ChatPrompt> {
  const { id, template, tokenizer, vocabSize, blockSize } = model;
  if (!template) {
    const why = `${id} has no chat template; use /v1/completions`;
    throw invalid("model", why, "unsupported_model");
  }
  const shape = samplingOf(body, vocabSize);
  try {
    const { ids: ends, strings } = await endOfTurn(template, model);
    const prompt = await template.ids(tokenizer, messages, { addGenerationPrompt: true, contents: "text" });
    checkLength(model, prompt.length, most ?? 1, at);
    const stray = prompt.find((token) => token >= vocabSize);
    if (stray !== undefined) {
      throw invalid(at, `${at}: the tokenizer of ${id} gives token ${stray}, which is not in the model's vocabulary`);
    }
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
 * Returns the error for messages that cannot be formatted or encoded. A text that the template passes to
 * `raise_exception` is meant for the client and is shown; other errors of the template are not.
 */
function refusal({ message }: DataError, id: string, at: string): ApiError {
  const [, says] = / says: ([^]*)$/.exec(message) ?? [];
  if (says !== undefined) {
    return invalid(at, `${at}: the chat template of ${id} says: ${shown(says)}`, "template_refused");
  }
  const text = `${at}: the chat template of ${id} failed on these messages, or a character is not in its vocabulary`;
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
