/**
 * Routes for `/v1/responses`, OpenAI's newer API for chats. Nothing is stored, so a request contains the whole chat.
 */
import type { Message } from "../data/examples.ts";
import { chatPrompt } from "./chats.ts";
import type { Generation, ServedModel } from "./engine_api.ts";
import { eventStream, typedEvent } from "./events.ts";
import {
  boolean,
  either,
  type Field,
  ignored,
  integer,
  list,
  mapped,
  metadata,
  object,
  optional,
  refused,
  type Schema,
  string,
  type Values,
} from "./fields.ts";
import { chatLogprobs } from "./logprobs.ts";
import { type Call, modelOf, type Route, route } from "./routes.ts";
import { content } from "./routes_chat.ts";
import { modelField, shaping } from "./sampling.ts";
import { generateAll, merged, Transcript } from "./transcripts.ts";

const NO_TOOLS = "This server's models call no functions; leave it out.";
const LOGPROBS = "message.output_text.logprobs";
const STATELESS = "This server stores no chats; send the whole chat as input.";

const item = mapped(
  object({
    type: optional(string({ max: 40, values: ["message"] })),
    role: string({ max: 20, values: ["developer", "system", "user", "assistant"] }),
    content: content(["input_text", "output_text"]),
    id: ignored(),
    status: ignored(),
    phase: ignored(),
  }),
  ({ role, content }): Message => ({ role: role === "developer" ? "system" : role, content }),
);
const input: Field<readonly Message[]> = either<readonly Message[]>("a string or a list of items", [
  {
    is: (value) => typeof value === "string",
    field: mapped(string({ max: 2 ** 20 }), (content) => [{ role: "user", content }]),
  },
  { is: Array.isArray, field: list(item, { min: 1, max: 1024 }) },
]);

const fields = {
  model: modelField,
  input,
  instructions: optional(string({ max: 2 ** 20 })),
  max_output_tokens: optional(integer({ min: 1, max: 65_536 })),
  ...shaping,
  top_logprobs: optional(integer({ min: 0, max: 20 })),
  include: optional(
    list(string({ max: 80 }), { max: 16, about: `Only ${LOGPROBS} is supported.` }),
  ),
  stream: optional(boolean(), false),
  metadata: optional(metadata, {}),
  text: refused("Describe the format in the input, and validate the answer.", [
    { format: { type: "text" } },
    {},
  ]),
  tools: refused(NO_TOOLS, [[]]),
  tool_choice: refused(NO_TOOLS, ["none", "auto"]),
  max_tool_calls: refused(NO_TOOLS),
  store: refused(STATELESS, [false]),
  previous_response_id: refused(STATELESS),
  conversation: refused(STATELESS),
  prompt: refused("Write the prompt into the input."),
  background: refused("Keep the connection open, or stream.", [false]),
  background_options: refused("Keep the connection open, or stream."),
  image: refused("Models read and write text only."),
  access_programs: ignored(),
  truncation: refused("Leave out old turns on your side.", ["disabled"]),
  context_management: refused("Leave out old turns on your side."),
  moderation: refused("Check texts on your side."),
  stream_options: ignored(),
  parallel_tool_calls: ignored(),
  prompt_cache_key: ignored(),
  prompt_cache_options: ignored(),
  prompt_cache_retention: ignored(),
  reasoning: ignored(),
  safety_identifier: ignored(),
  service_tier: ignored(),
  user: ignored(),
};
type Body = Values<typeof fields>;

const answers: Schema = {
  type: "object",
  required: ["id", "object", "created_at", "status", "model", "output", "usage"],
  properties: {
    ...{ id: { type: "string" }, object: { const: "response" }, created_at: { type: "integer" } },
    ...{ status: { enum: ["completed", "incomplete"] }, model: { type: "string" } },
    ...{ output: { type: "array", items: { type: "object" } }, usage: { type: ["object", "null"] } },
  },
};

export const responseRoutes: readonly Route[] = [
  route({
    ...{ method: "POST", path: "/v1/responses", audience: "local", summary: "Answer in a chat; newer form", answers },
    body: object(fields),
    answer: respond,
  }),
];

interface Asked {
  readonly call: Call<Body>;
  readonly model: ServedModel;
  readonly prompt: number;
  readonly generation: Generation;
  readonly transcript: Transcript;
  readonly created: number;
}

async function respond(call: Call<Body>): Promise<Response> {
  const { body } = call, { instructions, max_output_tokens: most } = body, model = modelOf(call, body.model);
  const system = instructions === undefined ? [] : [{ role: "system", content: instructions }];
  const sampling = { ...body, stop: [], frequency_penalty: 0, presence_penalty: 0 };
  const at = { at: "input", ...most !== undefined && { most } };
  const prompt = await chatPrompt(model, [...system, ...body.input], sampling, at);
  const wanted = wantsLogprobs(body);
  const [generation] = generateAll(call, [{
    ...{ ...prompt, count: 1 },
    ...wanted && { topLogprobs: body.top_logprobs ?? 0 },
  }]);
  const transcript = new Transcript(model.tokenizer, prompt), created = Math.floor(Date.now() / 1000);
  const asked: Asked = { call, model, prompt: prompt.prompt.length, generation, transcript, created };
  if (body.stream) return eventStream(streamed(asked), call.failed);
  const logprobs: unknown[] = [];
  for await (const { tokens } of told(asked)) if (wanted) logprobs.push(...chatLogprobs(model, tokens));
  return Response.json(responseOf(asked, messageOf(asked, logprobs)));
}

const wantsLogprobs = ({ include, top_logprobs }: Body): boolean =>
  include?.includes(LOGPROBS) === true || top_logprobs !== undefined;

async function* told({ generation, transcript }: Asked) {
  for await (const [, pieces] of merged([generation])) for (const piece of pieces) yield transcript.push(piece);
}

const partOf = (text: string, logprobs: readonly unknown[]) => ({
  type: "output_text" as const,
  ...{ text, annotations: [], logprobs },
});
/** Returns the answer's message. If `logprobs` is missing, the message is in progress, and has no content. */
function messageOf({ call, transcript: { text, finish } }: Asked, logprobs?: readonly unknown[]) {
  const status = !logprobs ? "in_progress" : finish === "stop" ? "completed" : "incomplete";
  const content = logprobs ? [partOf(text, logprobs)] : [];
  return { type: "message", id: `msg_${call.id.slice(4)}`, role: "assistant", status, content };
}

/** Returns the answer's `response` object. If `message` is missing, the answer is in progress. */
function responseOf({ call, model, prompt, transcript, created }: Asked, message?: object): Record<string, unknown> {
  const { instructions = null, max_output_tokens = null, temperature, top_p, top_logprobs, metadata } = call.body;
  const cut = message && transcript.finish !== "stop", { count } = transcript;
  const status = !message ? "in_progress" : cut ? "incomplete" : "completed";
  return {
    ...{ id: `resp_${call.id.slice(4)}`, object: "response", created_at: created, status, error: null },
    ...status === "completed" && { completed_at: Math.floor(Date.now() / 1000) },
    ...{ incomplete_details: cut ? { reason: "max_output_tokens" } : null, instructions, max_output_tokens },
    ...{
      model: model.id,
      output: message ? [message] : [],
      parallel_tool_calls: false,
      tool_choice: "none",
      tools: [],
    },
    ...{ temperature, top_p, ...top_logprobs !== undefined && { top_logprobs }, metadata, store: false },
    ...{ background: false, previous_response_id: null, truncation: "disabled", text: { format: { type: "text" } } },
    usage: message
      ? {
        input_tokens: prompt,
        input_tokens_details: { cached_tokens: transcript.cached, cache_write_tokens: 0 },
        output_tokens: count,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: prompt + count,
      }
      : null,
  };
}

async function* streamed(asked: Asked): AsyncGenerator<string> {
  const { call, model, transcript } = asked, item_id = `msg_${call.id.slice(4)}`, output_index = 0, content_index = 0;
  const wanted = wantsLogprobs(call.body), all: unknown[] = [];
  let sequence_number = 0;
  const say = (type: string, more: object) =>
    typedEvent({ type: `response.${type}`, sequence_number: sequence_number++, ...more } as { type: string });
  yield ["created", "in_progress"].map((type) => say(type, { response: responseOf(asked) })).join("");
  yield say("output_item.added", { output_index, item: messageOf(asked) });
  yield say("content_part.added", { item_id, output_index, content_index, part: partOf("", []) });
  try {
    for await (const { text: delta, tokens } of told(asked)) {
      const logprobs = wanted ? chatLogprobs(model, tokens) : [];
      all.push(...logprobs);
      if (!delta && logprobs.length === 0) continue;
      yield say("output_text.delta", { item_id, output_index, content_index, delta, logprobs });
    }
  } catch (error) {
    const { error: { message, code, param } } = call.failed(error).body;
    yield typedEvent({ type: "error", sequence_number, message, code, param } as { type: string });
    return;
  }
  const { text } = transcript, message = messageOf(asked, all), response = responseOf(asked, message);
  yield say("output_text.done", { item_id, output_index, content_index, text, logprobs: all });
  yield say("content_part.done", { item_id, output_index, content_index, part: partOf(text, all) });
  yield say("output_item.done", { output_index, item: message });
  yield say(String(response.status), { response });
}
