/**
 * Ten thousand damaged requests: each is answered at once, with a valid answer or a valid error, and never with 5xx.
 */
import { assert, assertEquals } from "@std/assert";
import { RandomGenerator } from "../../src/random/mod.ts";
import { Access } from "../../src/server/auth.ts";
import { handler } from "../../src/server/routes.ts";
import { servingRoutes } from "../../src/server/server.ts";
import { FakeEngine } from "./fake_engine.ts";

const messages = [{ role: "system", content: "be kind" }, { role: "user", content: [{ type: "text", text: "hi" }] }];
const valid: [path: string, body: Record<string, unknown>][] = [
  ["/v1/completions", { model: "letters", prompt: "ab", max_tokens: 3, temperature: 0.5, top_p: 1, n: 2, logprobs: 1 }],
  ["/v1/completions", { model: "parts", prompt: [[0], [1, 2]], echo: true, max_tokens: 2, logit_bias: { "1": 5 } }],
  ["/v1/completions", { model: "letters", prompt: ["a"], stop: ["b", "c"], seed: 1, stream: true, stream_options: {} }],
  ["/v1/engines/letters/completions", { prompt: "ab", best_of: 3, presence_penalty: 1, top_k: 3, min_p: 0.1 }],
  ["/v1/chat/completions", { model: "chats", messages, max_tokens: 2, logprobs: true, top_logprobs: 1, tools: [] }],
  ["/v1/chat/completions", { model: "chats", messages, stream: true, response_format: { type: "text" }, n: 2 }],
  ["/v1/responses", {
    model: "chats",
    input: [{ role: "user", content: "hi" }],
    max_output_tokens: 2,
    metadata: { a: "b" },
  }],
  ["/v1/responses", {
    model: "chats",
    input: "hi",
    instructions: "be kind",
    stream: true,
    text: { format: { type: "text" } },
  }],
  ["/v1/embeddings", { model: "letters", input: ["a", "b"], dimensions: 2, encoding_format: "base64" }],
  ["/v1/score", { model: "letters", prompt: "ab", continuations: ["c", [1]] }],
];
const VALUES: readonly unknown[] = [
  ...[
    null,
    null,
    null,
    true,
    false,
    0,
    1,
    2,
    -1,
    0.5,
    1e9,
    -1e9,
    2 ** 53,
    1e308,
    -0,
    "",
    "a",
    "\ud800",
    "\u0000",
    "A",
    "é",
  ],
  ...["a".repeat(5000), "a".repeat(300_000), "__proto__", "1e999", [], {}, [[]], [null], [1, "a"], [[[[[[]]]]]]],
  ...[{ "": 1 }, { a: { b: { c: [] } } }, Array(3000).fill("a"), Array(70_000).fill(1), { constructor: 1 }],
];

/** Returns the path of each value inside a JSON value: the keys and indices that lead to it. */
function places(value: unknown, at: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== "object" || value === null) return [at];
  return [at, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...at, key]))];
}
function changed(value: unknown, [key, ...rest]: (string | number)[], to: unknown): unknown {
  if (key === undefined) return to;
  if (typeof value !== "object" || value === null) return { [key]: to };
  const copy = Array.isArray(value) ? [...value] : { ...value };
  Object.assign(copy, { [key]: changed((value as Record<string, unknown>)[key], rest, to) });
  return copy;
}

function mutant(body: Record<string, unknown>, random: RandomGenerator): string {
  const pick = <T>(of: readonly T[]) => of[random.randint(of.length)], kind = random.randint(10);
  if (kind < 7) {
    let value: unknown = body;
    for (let i = random.randint(5) >> 2; i >= 0; i--) {
      const [name] = pick(Object.keys(body)), [whole, ...inner] = places(value);
      const at = random.randint(9) && inner.length > 0 ? pick(inner) : whole, to = pick(VALUES);
      value = kind < 5 ? changed(value, at, to) : changed(value, [...at, pick(["x", "0", name])], to);
    }
    return JSON.stringify(value) ?? "";
  }
  const text = JSON.stringify(body), at = random.randint(text.length);
  if (kind === 7) return text.slice(0, at);
  if (kind === 8) {
    return text.slice(0, at) + pick(["1e999", "[", "{", "]", '"', "\\u0000", ",", "-", "null"]) + text.slice(at);
  }
  return text.slice(0, at) + String.fromCharCode(random.randint(256)) + text.slice(at + 1);
}

Deno.test("mutants: 10,000 damaged bodies cause no internal error", async () => {
  const engine = new FakeEngine(), errors: unknown[] = [], random = new RandomGenerator(17);
  const answer = handler(
    { engine, access: new Access({ hostname: "127.0.0.1" }), onError: (error) => errors.push(error) },
    servingRoutes,
  );
  const seen = new Map<number, number>();
  for (let i = 0; i < 10_000; i++) {
    const [path, body] = valid[i % valid.length], text = i < valid.length ? JSON.stringify(body) : mutant(body, random);
    const headers = { host: "localhost", "content-type": "application/json" };
    const response = await answer(new Request(`http://localhost${path}`, { method: "POST", headers, body: text }));
    const said = await response.text(),
      where = `${path} ${text.slice(0, 200)}: ${response.status} ${said.slice(0, 200)}`;
    seen.set(response.status, (seen.get(response.status) ?? 0) + 1);
    if (i < valid.length) assertEquals(response.status, 200, where);
    assert([200, 400, 404, 413].includes(response.status), where);
    assertEquals(errors, [], where);
    if (response.status === 200) continue;
    const { error } = JSON.parse(said);
    assertEquals(Object.keys(error), ["message", "type", "param", "code"], where);
    assert(typeof error.message === "string" && error.message.length < 600, where);
  }
  assertEquals(engine.running, 0);
  assert(seen.get(200)! > 500 && seen.get(400)! > 5000, JSON.stringify([...seen]));
  engine.all.forEach(({ template }) => template?.[Symbol.dispose]());
});
