/**
 * Routes for `/v1/completions`, OpenAI's older API, which continues prompts. It also returns log-probabilities of a
 * prompt's tokens.
 */
import type { Generation, Piece, PromptScore, ServedModel } from "./engine_api.ts";
import { invalid } from "./errors.ts";
import { DONE, event, eventStream } from "./events.ts";
import { boolean, ignored, integer, object, optional, refused, type Schema, type Values } from "./fields.ts";
import { append, emptyLists, type LogprobLists, OlderLogprobs, olderSchema } from "./logprobs.ts";
import { type Call, modelOf, type Route, route } from "./routes.ts";
import { checkStreamOptions, modelField, MOST_TEXTS, sampling, samplingOf } from "./sampling.ts";
import { checkLength, decode, eachText, encode, writtenFields } from "./texts.ts";
import { generateAll, merged, Transcript, usageOf } from "./transcripts.ts";

const fields = {
  prompt: optional(writtenFields(MOST_TEXTS), [""]),
  max_tokens: optional(
    integer({ min: 0, max: 65_536, about: "0 is allowed with echo, to score the prompt. Default 16." }),
  ),
  best_of: optional(integer({ min: 1, max: 20 })),
  echo: optional(boolean(), false),
  logprobs: optional(integer({ min: 0, max: 20, about: "OpenAI's API allows at most 5." })),
  suffix: refused("Models can only continue a text at its end; leave it out.", [""]),
  ...sampling,
};
type Body = Values<typeof fields>;

const usage = ["prompt_tokens", "completion_tokens", "total_tokens"];
export const usageSchema: Schema = {
  type: "object",
  required: usage,
  properties: Object.fromEntries(usage.map((name) => [name, { type: "integer" }])),
};
const choiceSchema: Schema = {
  type: "object",
  required: ["text", "index", "logprobs", "finish_reason"],
  properties: {
    text: { type: "string" },
    index: { type: "integer" },
    logprobs: olderSchema,
    finish_reason: { enum: ["stop", "length"] },
  },
};
/** The schema of an answer: the fields that all generating routes share, and `more`. */
export const answerSchema = (object: string, more: Schema): Schema => ({
  type: "object",
  required: ["id", "object", "created", "model", ...Object.keys(more)],
  properties: {
    ...{ id: { type: "string" }, object: { const: object }, created: { type: "integer" }, model: { type: "string" } },
    ...more,
  },
});
const answers = answerSchema("text_completion", {
  choices: { type: "array", items: choiceSchema },
  usage: usageSchema,
});

export const completionRoutes: readonly Route[] = [
  route({
    ...{ method: "POST", path: "/v1/completions", audience: "local", summary: "Continue prompts", answers },
    body: object({ model: modelField, ...fields }),
    answer: (call) => complete(call, call.body, call.body.model),
  }),
  route({
    ...{ method: "POST", path: "/v1/engines/{engine}/completions", audience: "local", answers },
    summary: "Continue prompts, at the path that openai 0.28 uses",
    body: object({
      model: ignored("The model is taken from the path."),
      engine: ignored("The model is taken from the path."),
      ...fields,
    }),
    answer: (call) => complete(call, call.body, call.path.engine),
  }),
];

interface Prompt {
  readonly ids: readonly number[];
  readonly added: number;
  readonly text: string;
}

/** A request whose texts are being generated. */
interface Asked {
  readonly body: Body;
  readonly model: ServedModel;
  readonly prompts: readonly Prompt[];
  readonly generations: readonly Generation[];
  /** `count` transcripts for each prompt, in the order of the prompts. */
  readonly transcripts: readonly Transcript[];
  readonly count: number;
  /** The fields that all answers and events share. */
  readonly head: Readonly<Record<string, unknown>>;
}

async function complete(call: Call, body: Body, id: string): Promise<Response> {
  const { n, best_of: count = n, stream, echo, logprobs } = body, model = modelOf(call, id);
  check(body, count);
  const shape = samplingOf(body, model.vocabSize),
    prompts = await eachText(body.prompt, (written, i): Prompt => {
      const at = body.prompt.length > 1 ? `prompt[${i}]` : "prompt", ids = encode(model, written, at);
      const added = body.max_tokens ?? Math.max(1, Math.min(16, model.blockSize - ids.length));
      checkLength(model, ids.length, added, at);
      return { ids, added, text: typeof written === "string" ? written : decode(model, ids) };
    });
  const scored = echo && logprobs !== undefined;
  const generations = generateAll(
    call,
    prompts.map(({ ids: prompt, added: maxNewTokens }) => ({
      ...{ ...shape, model: model.id, prompt, count, maxNewTokens },
      ...logprobs !== undefined ? { topLogprobs: logprobs } : count > n && { topLogprobs: 0 },
      ...(scored || maxNewTokens === 0) && { promptLogprobs: logprobs ?? 0 },
    })),
  );
  const transcripts = prompts.flatMap(() =>
    Array.from({ length: count }, () => new Transcript(model.tokenizer, shape))
  );
  const head = headOf(call, model, "cmpl", "text_completion");
  const asked: Asked = { body, model, prompts, generations, transcripts, count, head };
  return stream ? eventStream(streamed(asked), call.failed) : await whole(asked);
}

/** Checks a request's parameters together. @throws {ApiError} 400 if two of them contradict each other */
function check(body: Body, count: number): void {
  const { n, prompt: { length }, stream, echo, max_tokens } = body;
  if (count < n) throw invalid("best_of", `best_of=${count} is less than n=${n}; expected at least n`);
  if (stream && count > n) {
    throw invalid(
      "best_of",
      "best_of above n is not possible with stream=true, because the best texts are known only at the end",
    );
  }
  if (length * count > MOST_TEXTS) {
    throw invalid(
      "n",
      `${length} prompts with ${count} texts each are ${length * count} texts; at most ${MOST_TEXTS} are allowed`,
    );
  }
  if (max_tokens === 0 && !echo) throw invalid("max_tokens", "max_tokens=0 is only allowed with echo=true");
  checkStreamOptions(body);
}

/** The fields that an answer and its events share. */
export const headOf = ({ id }: Call, model: ServedModel, kind: string, object: string) => ({
  id: `${kind}-${id.slice(4)}`,
  object,
  created: Math.floor(Date.now() / 1000),
  model: model.id,
});

/** The new part of a choice. */
interface Told {
  readonly index: number;
  readonly text: string;
  readonly logprobs: LogprobLists | null;
  readonly finish?: Piece["finish"];
}

/** The new parts of all choices. With `echo`, the first part of each choice begins with the prompt. */
async function* told({ body, model, prompts, generations, transcripts, count }: Asked): AsyncGenerator<Told> {
  const { echo, logprobs } = body, begun = new Set<number>(), lists = transcripts.map(() => new OlderLogprobs(model));
  const scores = (i: number): Promise<readonly PromptScore[]> | undefined => generations[i].promptLogprobs;
  for await (const [i, pieces] of merged(generations)) {
    for (const piece of pieces) {
      const index = i * count + piece.index, transcript = transcripts[index], { ids, text: prompt } = prompts[i];
      const all = logprobs === undefined ? null : emptyLists(), first = echo && !begun.has(index);
      if (first && all) append(all, lists[index].prompt(ids, prompt, await scores(i) ?? []));
      begun.add(index);
      const { text, tokens, finish } = transcript.push(piece);
      if (all) append(all, lists[index].tokens(transcript.text, tokens));
      yield { index, text: first ? prompt + text : text, logprobs: all, ...finish && { finish } };
    }
  }
}

async function whole(asked: Asked): Promise<Response> {
  const { body: { n }, count, prompts, transcripts, head } = asked;
  const all = transcripts.map((transcript) => ({ transcript, text: "", logprobs: null as LogprobLists | null }));
  for await (const { index, text, logprobs } of told(asked)) {
    const choice = all[index];
    choice.text += text;
    if (logprobs) append(choice.logprobs ??= emptyLists(), logprobs);
  }
  const mean = ({ transcript: { logprob, count } }: typeof all[0]) => logprob / Math.max(1, count);
  const best = prompts.flatMap((_, i) => {
    const those = all.slice(i * count, (i + 1) * count);
    return count > n ? those.sort((a, b) => mean(b) - mean(a)).slice(0, n) : those;
  });
  const choices = best.map(({ text, logprobs, transcript: { finish = "length" } }, index) => ({
    ...{ text, index, logprobs, finish_reason: finish },
  }));
  return Response.json({ ...head, choices, usage: usageOf(tokensOf(asked), asked.transcripts) });
}

async function* streamed(asked: Asked): AsyncGenerator<string> {
  const { body: { stream_options: { include_usage = false } = {} }, head } = asked;
  const rest = include_usage ? { usage: null } : {};
  for await (const { index, text, logprobs, finish } of told(asked)) {
    if (!text && !finish && !logprobs?.tokens.length) continue;
    yield event({ ...head, choices: [{ text, index, logprobs, finish_reason: finish ?? null }], ...rest });
  }
  if (include_usage) yield event({ ...head, choices: [], usage: usageOf(tokensOf(asked), asked.transcripts) });
  yield DONE;
}

const tokensOf = ({ prompts }: Asked): number => prompts.reduce((sum, { ids }) => sum + ids.length, 0);
