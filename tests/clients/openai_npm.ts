/**
 * OpenAI's JavaScript client in Deno: plain answers, streams and helpers, errors, an aborted stream.
 *
 * Usage: deno run openai_npm.ts URL COMPLETION_MODEL CHAT_MODEL
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { importNpm } from "../../scripts/npm.ts";

const [baseURL, model, chatModel] = Deno.args;
const { default: OpenAI, NotFoundError, BadRequestError } = await importNpm("openai");
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });

const ask = { model, prompt: "the ", max_tokens: 8, temperature: 0, seed: 1 };
const plain = await client.completions.create(ask);
let text = "";
for await (const piece of await client.completions.create({ ...ask, stream: true })) text += piece.choices[0].text;
assertEquals(text, plain.choices[0].text);
assert(plain._request_id.startsWith("req_"));

const talk = { model: chatModel, messages: [{ role: "user", content: "hi" }], max_tokens: 6, temperature: 0, seed: 2 };
const answer = await client.chat.completions.create(talk);
const runner = client.chat.completions.stream({ ...talk, stream_options: { include_usage: true } });
const whole = await runner.finalChatCompletion();
assertEquals(whole.choices[0].message.content, answer.choices[0].message.content);
assertEquals(whole.usage.total_tokens, answer.usage.total_tokens);

const reply = await client.responses.create({ model: chatModel, input: "hi", max_output_tokens: 6, temperature: 0 });
const helper = client.responses.stream({ model: chatModel, input: "hi", max_output_tokens: 6, temperature: 0 });
assertEquals((await helper.finalResponse()).output_text, reply.output_text);

const [packed, floats] = await Promise.all(
  [undefined, "float"].map((encoding_format) => client.embeddings.create({ model, input: "a", encoding_format })),
);
const vectors = [packed, floats].map(({ data }) => Array.from(data[0].embedding as number[]));
vectors[0].forEach((x, i) => assertAlmostEquals(x, vectors[1][i], 1e-6));

const ids: string[] = [];
for await (const { id } of client.models.list()) ids.push(id);
assert(ids.includes(model));
// deno-lint-ignore no-explicit-any -- the client's classes
const refused = async (kind: any, param: string, call: () => Promise<unknown>) =>
  assertEquals((await assertRejects(call, kind) as { param?: unknown }).param, param);
await refused(NotFoundError, "model", () => client.models.retrieve("no/such"));
await refused(BadRequestError, "n", () => client.completions.create({ ...ask, n: 1000 }));

const left = await client.completions.create({ ...ask, max_tokens: 40, stream: true });
for await (const _ of left) break; // closes the connection
const counted = async () => {
  const metrics = await (await fetch(new URL("/metrics", baseURL))).text();
  return Number(/nanogpt_generation_tokens_total\S* (\d+)/.exec(metrics)![1]);
};
await new Promise((resolve) => setTimeout(resolve, 500));
const before = await counted();
await new Promise((resolve) => setTimeout(resolve, 500));
assertEquals(await counted(), before); // generation has stopped
console.log("checks passed");
