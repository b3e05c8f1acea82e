/** Parameters shared by all routes that generate texts, and their translation for the engine. */
import type { GenerateRequest } from "./engine_api.ts";
import { invalid } from "./errors.ts";
import { boolean, either, ignored, integer, list, map, mapped, number, object, optional, string } from "./fields.ts";

/** The greatest seed. The sum with a text's index must stay a safe integer. */
const GREATEST_SEED = 2 ** 51;
/** Maximum number of texts of a request. */
export const MOST_TEXTS = 128;

export const modelField = string({ min: 1, max: 256, about: "Id of a model that GET /v1/models lists." });

/** Parameters that shape the distribution of the next token. */
export const shaping = {
  temperature: optional(number({ min: 0, max: 2, about: "0 always chooses the most likely token." }), 1),
  top_p: optional(number({ min: 0, max: 1 }), 1),
};

/** Parameters of completions and chats. */
export const sampling = {
  ...shaping,
  top_k: optional(integer({ min: 0, max: 1_000_000, about: "Not in OpenAI's API. 0, the default, means all tokens." })),
  min_p: optional(number({ min: 0, max: 1, about: "Not in OpenAI's API." })),
  n: optional(integer({ min: 1, max: 16 }), 1),
  stop: optional(
    either<readonly string[]>("a string or a list of strings", [
      {
        is: (value) => typeof value === "string",
        field: mapped(string({ min: 1, max: 256 }), (text) => [text]),
      },
      { is: Array.isArray, field: list(string({ min: 1, max: 256 }), { max: 4 }) },
    ], "The text ends before the first stop string."),
    [],
  ),
  seed: optional(integer({ min: -GREATEST_SEED, max: GREATEST_SEED })),
  frequency_penalty: optional(number({ min: -2, max: 2 }), 0),
  presence_penalty: optional(number({ min: -2, max: 2 }), 0),
  logit_bias: optional(
    map(number({ min: -100, max: 100 }), {
      ...{ names: /^[0-9]{1,9}$/, max: 300, about: "Numbers to add to the logits of tokens, by token id." },
    }),
  ),
  stream: optional(boolean(), false),
  stream_options: optional(object({
    include_usage: optional(boolean(), false),
    include_obfuscation: ignored(),
  })),
  user: ignored(),
};

/** The validated values of {@linkcode sampling}. */
export interface Sampling {
  readonly temperature: number;
  readonly top_p: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly stop: readonly string[];
  readonly seed?: number;
  readonly frequency_penalty: number;
  readonly presence_penalty: number;
  readonly logit_bias?: ReadonlyMap<string, number>;
}

/**
 * Translates the parameters for the engine.
 *
 * @param vocabSize the model's vocabulary size
 * @throws {ApiError} 400 if `logit_bias` has an id outside the vocabulary
 */
export function samplingOf(
  body: Sampling,
  vocabSize: number,
): Omit<GenerateRequest, "model" | "prompt" | "count" | "maxNewTokens"> {
  const { temperature, top_p: topP, top_k: topK, min_p: minP, stop, seed, logit_bias: bias = new Map() } = body;
  const logitBias = new Map(Array.from(bias, ([id, value]) => [Number(id), value]));
  const stray = logitBias.keys().find((id) => id >= vocabSize);
  if (stray !== undefined) {
    throw invalid("logit_bias", `logit_bias: ${stray} is not a valid token id; expected 0 to ${vocabSize - 1}`);
  }
  return {
    ...{ temperature, topP, stop, logitBias },
    ...topK && { topK: Math.min(topK, vocabSize) },
    ...minP !== undefined && { minP },
    frequencyPenalty: body.frequency_penalty,
    presencePenalty: body.presence_penalty,
    seed: seed === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : seed < 0 ? GREATEST_SEED - seed : seed,
  };
}

export function checkStreamOptions({ stream, stream_options }: { stream: boolean; stream_options?: object }): void {
  if (stream_options && !stream) {
    throw invalid("stream_options", "stream_options is only allowed with stream=true");
  }
}
