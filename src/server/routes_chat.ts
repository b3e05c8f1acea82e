/** Routes for `/v1/chat/completions`. Chats are formatted by the model's own template. */
import type { Message } from "../data/examples.ts";
import { chatPrompt } from "./chats.ts";
import type { Generation, Piece, ServedModel } from "./engine_api.ts";
import { invalid } from "./errors.ts";
import { DONE, event, eventStream } from "./events.ts";
import {
  boolean,
  either,
  type Field,
  ignored,
  integer,
  list,
  mapped,
  object,
  optional,
  refused,
  string,
  type Values,
} from "./fields.ts";
import { chatLogprobs, chatSchema } from "./logprobs.ts";
import { type Call, modelOf, type Route, route } from "./routes.ts";
import { answerSchema, headOf, usageSchema } from "./routes_completions.ts";
import { checkStreamOptions, modelField, sampling } from "./sampling.ts";
import { generateAll, merged, type Told, Transcript, usageOf } from "./transcripts.ts";

const TEXT = 2 ** 20;
/** A text part of a message's content. Parts of other types are refused. */
export const textPart = (types: readonly string[]): Field<string> => ({
  schema: {
    type: "object",
    properties: { type: { enum: types }, text: { type: "string", maxLength: TEXT } },
    required: ["type", "text"],
  },
  check(value, at) {
    const part = object({ type: string({ max: 40 }) }).check({ type: (value as { type?: unknown } | null)?.type }, at);
    if (!types.includes(part.type)) {
      throw invalid(`${at}.type`, `${at}.type is not supported here; models read text only`, "unsupported_value");
    }
    return string({ max: TEXT }).check((value as { text?: unknown }).text, `${at}.text`);
  },
});
/** A message's content: a string, or text parts, which are joined by line ends. */
export const content = (types: readonly string[]): Field<string> =>
  either<string>("a string or a list of parts", [
    { is: (value) => typeof value === "string", field: string({ max: TEXT }) },
    {
      is: Array.isArray,
      field: mapped(list(textPart(types), { min: 1, max: 256 }), (parts) => parts.join("\n")),
    },
  ]);

const NO_TOOLS = "This server's models call no functions; leave it out.";
const message = object({
  role: string({ max: 20, values: ["developer", "system", "user", "assistant"] }),
  content: content(["text"]),
  name: ignored(),
  refusal: refused("Put an assistant's refusal into its content."),
  audio: refused("This server's models write text only."),
  tool_calls: refused(NO_TOOLS, [[]]),
  function_call: refused(NO_TOOLS),
  tool_call_id: refused(NO_TOOLS),
});

const fields = {
  model: modelField,
  messages: list(message, { min: 1, max: 1024 }),
  ...sampling,
  max_completion_tokens: optional(
    integer({ min: 1, max: 65_536, about: "Default: up to the model's context length." }),
  ),
  max_tokens: optional(integer({ min: 1, max: 65_536, about: "The older name of max_completion_tokens." })),
  logprobs: optional(boolean(), false),
  top_logprobs: optional(integer({ min: 0, max: 20, about: "Needs logprobs." })),
  response_format: refused("Describe the format in the messages, and validate the answer.", [{ type: "text" }]),
  tools: refused(NO_TOOLS, [[]]),
  tool_choice: refused(NO_TOOLS, ["none", "auto"]),
  functions: refused(NO_TOOLS, [[]]),
  function_call: refused(NO_TOOLS, ["none", "auto"]),
  modalities: refused("This server's models write text only.", [["text"]]),
  audio: refused("This server's models write text only."),
  prediction: refused("Leave it out; it would not change the answer."),
  web_search_options: refused("Put what the model should know into the messages."),
  moderation: refused("Check texts on your side."),
  store: refused("This server stores no messages; store them on your side.", [false]),
  metadata: ignored(),
  parallel_tool_calls: ignored(),
  prompt_cache_key: ignored(),
  prompt_cache_options: ignored(),
  prompt_cache_retention: ignored(),
  reasoning_effort: ignored(),
  safety_identifier: ignored(),
  service_tier: ignored(),
  verbosity: ignored(),
};
type Body = Values<typeof fields>;

const answers = answerSchema("chat.completion", {
  choices: {
    type: "array",
    items: {
      type: "object",
      required: ["index", "message", "logprobs", "finish_reason"],
      properties: {
        index: { type: "integer" },
        message: {
          type: "object",
          required: ["role", "content", "refusal"],
          properties: { role: { const: "assistant" }, content: { type: "string" }, refusal: { type: "null" } },
        },
        logprobs: { type: ["object", "null"], properties: { content: { type: "array", items: chatSchema } } },
        finish_reason: { enum: ["stop", "length"] },
      },
    },
  },
  usage: usageSchema,
});

export const chatRoutes: readonly Route[] = [
  route({
    ...{ method: "POST", path: "/v1/chat/completions", audience: "local", summary: "Answer in a chat", answers },
    body: object(fields),
    answer: chat,
  }),
];

interface Asked {
  readonly body: Body;
  readonly model: ServedModel;
  readonly prompt: number;
  readonly generation: Generation;
  readonly transcripts: readonly Transcript[];
  readonly head: Readonly<Record<string, unknown>>;
}

async function chat(call: Call<Body>): Promise<Response> {
  const { body } = call, { n, stream, logprobs, top_logprobs } = body, model = modelOf(call, body.model);
  if (top_logprobs && !logprobs) {
    throw invalid("top_logprobs", "top_logprobs is only allowed with logprobs=true");
  }
  checkStreamOptions(body);
  const most = body.max_completion_tokens ?? body.max_tokens, { messages } = body;
  const prompt = await chatPrompt(model, messages.map(said), body, {
    at: "messages",
    ...most !== undefined && { most },
  });
  const [generation] = generateAll(call, [{
    ...{ ...prompt, count: n },
    ...logprobs && { topLogprobs: top_logprobs ?? 0 },
  }]);
  const transcripts = Array.from({ length: n }, () => new Transcript(model.tokenizer, prompt));
  const head = headOf(call, model, "chatcmpl", stream ? "chat.completion.chunk" : "chat.completion");
  const asked: Asked = { body, model, prompt: prompt.prompt.length, generation, transcripts, head };
  return stream ? eventStream(streamed(asked), call.failed) : whole(asked);
}

/** Converts a message; the role `developer` means `system`. */
const said = ({ role, content }: { readonly role: string; readonly content: string }): Message => ({
  role: role === "developer" ? "system" : role,
  content,
});

async function* told({ generation, transcripts }: Asked): AsyncGenerator<Told & Pick<Piece, "index">> {
  for await (const [, pieces] of merged([generation])) {
    for (const piece of pieces) yield { index: piece.index, ...transcripts[piece.index].push(piece) };
  }
}

async function whole(asked: Asked): Promise<Response> {
  const { body: { logprobs }, model, transcripts, head } = asked;
  const tokens = transcripts.map(() => [] as ReturnType<typeof chatLogprobs>);
  for await (const { index, tokens: more } of told(asked)) {
    if (logprobs) tokens[index].push(...chatLogprobs(model, more));
  }
  const choices = transcripts.map(({ text: content, finish: finish_reason = "length" }, index) => ({
    index,
    message: { role: "assistant", content, refusal: null },
    logprobs: logprobs ? { content: tokens[index], refusal: null } : null,
    finish_reason,
  }));
  return Response.json({ ...head, choices, usage: usageOf(asked.prompt, transcripts) });
}

async function* streamed(asked: Asked): AsyncGenerator<string> {
  const { body: { logprobs, stream_options: { include_usage = false } = {} }, model, transcripts, head } = asked;
  const rest = include_usage ? { usage: null } : {};
  const chunk = (index: number, delta: object, more: { logprobs?: unknown; finish_reason?: Piece["finish"] } = {}) =>
    event({ ...head, choices: [{ index, delta, logprobs: null, finish_reason: null, ...more }], ...rest });
  yield transcripts.map((_, index) => chunk(index, { role: "assistant", content: "", refusal: null })).join("");
  for await (const { index, text: content, tokens, finish } of told(asked)) {
    const told = logprobs && tokens.length > 0 ? { content: chatLogprobs(model, tokens), refusal: null } : null;
    if (content || told) yield chunk(index, { content }, { logprobs: told });
    if (finish) yield chunk(index, {}, { finish_reason: finish });
  }
  if (include_usage) yield event({ ...head, choices: [], usage: usageOf(asked.prompt, transcripts) });
  yield DONE;
}
