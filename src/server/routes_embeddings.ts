/**
 * Routes for `/v1/embeddings`, and for `/v1/score`, which is not in OpenAI's API and returns how likely continuations
 * are.
 */
import type { PromptScore, ServedModel } from "./engine_api.ts";
import { invalid } from "./errors.ts";
import { ignored, integer, list, object, optional, type Schema, string, type Values } from "./fields.ts";
import { type Call, modelOf, type Route, route } from "./routes.ts";
import { modelField, MOST_TEXTS } from "./sampling.ts";
import { checkLength, eachText, encode, nameOf, writtenField, writtenFields } from "./texts.ts";
import { generateAll } from "./transcripts.ts";

/** Maximum number of tokens of an embedding request. */
const MOST_IN_ALL = 131_072;

const embedded = {
  model: modelField,
  input: writtenFields(2048, { min: 1 }),
  dimensions: optional(integer({ min: 1, max: 65_536, about: "Return only the first numbers, normalised again." })),
  encoding_format: optional(string({ max: 10, values: ["float", "base64"] }), "float"),
  user: ignored(),
};
const scored = {
  model: modelField,
  prompt: optional(writtenField, ""),
  continuations: list(writtenField, { min: 1, max: MOST_TEXTS, about: "Texts that follow the prompt." }),
};

const integers = (...names: readonly string[]): Schema => ({
  type: "object",
  required: names,
  properties: Object.fromEntries(names.map((name) => [name, { type: "integer" }])),
});
const answers = (data: Schema): Schema => ({
  type: "object",
  required: ["object", "data", "model", "usage"],
  properties: {
    ...{ object: { const: "list" }, data: { type: "array", items: data }, model: { type: "string" } },
    usage: integers("prompt_tokens", "total_tokens"),
  },
});
const numbers = { type: "array", items: { type: "number" } };

export const embeddingRoutes: readonly Route[] = [
  route({
    ...{ method: "POST", path: "/v1/embeddings", audience: "local", body: object(embedded), answer: embed },
    summary: "A text's embedding: the mean of its final hidden states, normalised to length 1",
    answers: answers({
      type: "object",
      required: ["object", "index", "embedding"],
      properties: {
        ...{ object: { const: "embedding" }, index: { type: "integer" } },
        embedding: { anyOf: [numbers, { type: "string" }] },
      },
    }),
  }),
  route({
    ...{ method: "POST", path: "/v1/score", audience: "local", body: object(scored), answer: score },
    summary: "Log-probabilities of continuations; not in OpenAI's API",
    answers: answers({
      type: "object",
      required: ["object", "index", "logprob", "tokens", "token_logprobs", "is_greedy"],
      properties: {
        ...{ object: { const: "score" }, index: { type: "integer" }, logprob: { type: "number" } },
        ...{ tokens: { type: "array", items: { type: "string" } }, token_logprobs: numbers },
        is_greedy: { type: "boolean" },
      },
    }),
  }),
];

async function embed(call: Call<Values<typeof embedded>>): Promise<Response> {
  const { body: { input, dimensions, encoding_format }, served, signal, key } = call,
    model = modelOf(call, call.body.model);
  if (dimensions !== undefined && dimensions > model.embeddingSize) {
    throw invalid("dimensions", `dimensions=${dimensions} is more than the ${model.embeddingSize} of ${model.id}`);
  }
  const ids = await eachText(input, (written, i) => {
    const at = input.length > 1 ? `input[${i}]` : "input", ids = encode(model, written, at);
    checkLength(model, ids.length, 0, at);
    return ids;
  });
  const tokens = ids.reduce((sum, { length }) => sum + length, 0);
  if (tokens > MOST_IN_ALL) {
    throw invalid(
      "input",
      `input has ${tokens} tokens in total; at most ${MOST_IN_ALL} are allowed; send several requests`,
    );
  }
  const means = await served.engine.embed(model.id, ids, signal, key);
  const data = means.map((mean, index) => {
    const embedding = unit(mean.subarray(0, dimensions));
    return { object: "embedding", index, embedding: encoding_format === "base64" ? base64(embedding) : [...embedding] };
  });
  return Response.json({
    object: "list",
    data,
    model: model.id,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}

/** Scales a vector to length 1, so that the dot product of two is their cosine. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector);
  return length > 0 ? vector.map((x) => x / length) : vector;
}
/** Encodes a vector as little-endian float32 in base64, as clients read it. */
function base64(vector: Float32Array): string {
  const view = new DataView(new ArrayBuffer(4 * vector.length));
  vector.forEach((x, i) => view.setFloat32(4 * i, x, true));
  return new Uint8Array(view.buffer).toBase64();
}

async function score(call: Call<Values<typeof scored>>): Promise<Response> {
  const { body: { prompt, continuations } } = call, model = modelOf(call, call.body.model);
  const texts = await eachText(continuations, (continuation, i) => {
    const text = together(model, prompt, continuation, `continuations[${i}]`);
    checkLength(model, text.ids.length, 0, `continuations[${i}]`);
    return text;
  });
  const neutral = {
    temperature: 1,
    topP: 1,
    seed: 0,
    stop: [],
    logitBias: new Map(),
    frequencyPenalty: 0,
    presencePenalty: 0,
  };
  const generations = generateAll(
    call,
    texts.map(({ ids }) => ({
      ...{ ...neutral, model: model.id, prompt: ids, count: 1, maxNewTokens: 0, promptLogprobs: 0 },
    })),
  );
  const scores = await Promise.all(
    generations.map(async ({ pieces, promptLogprobs }): Promise<readonly PromptScore[]> => {
      const scores = promptLogprobs ?? Promise.resolve([]);
      scores.catch(() => {}); // the loop over the pieces throws the same error
      for await (const _ of pieces);
      return await scores;
    }),
  );
  const data = texts.map(({ ids, from }, index) => {
    const those = scores[index].slice(from - 1);
    return {
      ...{ object: "score", index, logprob: those.reduce((sum, { logprob }) => sum + logprob, 0) },
      tokens: ids.slice(from).map((id) => nameOf(model.tokenizer, id)),
      token_logprobs: those.map(({ logprob }) => logprob),
      is_greedy: those.every(({ greedy }) => greedy),
    };
  });
  const tokens = texts.reduce((sum, { ids }) => sum + ids.length, 0);
  return Response.json({
    object: "list",
    data,
    model: model.id,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}

/**
 * Joins the tokens of a prompt and of a continuation, which begins at `from`. Two strings are encoded as one text, and
 * `from` is the number of tokens that the prompt has when it is encoded alone, as in lm-evaluation-harness.
 */
function together(
  model: ServedModel,
  prompt: string | readonly number[],
  continuation: string | readonly number[],
  at: string,
): { readonly ids: readonly number[]; readonly from: number } {
  const before = encode(model, prompt, "prompt");
  const both = typeof prompt === "string" && prompt !== "" && typeof continuation === "string";
  const ids = both ? encode(model, prompt + continuation, at) : [...before, ...encode(model, continuation, at)];
  const from = Math.min(before.length, ids.length);
  if (continuation === "" || from === ids.length) throw invalid(at, `${at} has no tokens to score`);
  return { ids, from };
}
