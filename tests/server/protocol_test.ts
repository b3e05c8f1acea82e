/** OpenAI's protocol: answers, streams, log-probabilities, errors. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { ChatTemplate } from "../../src/data/chat_template.ts";
import { DeviceError } from "../../src/errors.ts";
import { Draining, QueueFull, Unavailable } from "../../src/server/engine_api.ts";
import { ApiError } from "../../src/server/errors.ts";
import { event, eventStream } from "../../src/server/events.ts";
import type { EncodeOptions, Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { chats, eventsOf, letters, served, withServer } from "./fake_engine.ts";

const say = (content: unknown) => ({ model: "chats", messages: [{ role: "user", content }] });
interface Choice {
  text: string;
  index: number;
  finish_reason: string | null;
  logprobs: {
    tokens: string[];
    token_logprobs: (number | null)[];
    top_logprobs: (Record<string, number> | null)[];
    text_offset: number[];
  };
  message: { role: string; content: string };
  delta: { role?: string; content?: string };
}
interface Answer {
  id: string;
  choices: Choice[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
}
const answer = async (response: Response): Promise<Answer> => {
  assertEquals(response.status, 200);
  return await response.json();
};

Deno.test("completions: log-probabilities match the text's tokens, and offsets count code points", () =>
  withServer(async ({ post, engine }) => {
    const ask = { model: "parts", prompt: [0], max_tokens: 8, echo: true, logprobs: 1 };
    engine.all[2] = { ...engine.all[2], endIds: [] };
    const { choices: [choice], usage } = await answer(await post("/v1/completions", ask));
    assertEquals(choice.text, "abab\u00e9\u2603<end>");
    const { tokens, text_offset, token_logprobs, top_logprobs } = choice.logprobs;
    const bytes = ["bytes:\\xc3", "bytes:\\xa9", "bytes:\\xe2", "bytes:\\x98", "bytes:\\x83"];
    assertEquals(tokens, ["a", "b", "ab", ...bytes, "<end>"]);
    assertEquals(text_offset, [0, 1, 2, 4, 4, 5, 5, 5, 6]);
    assertEquals(token_logprobs.slice(0, 3), [null, -0.25, -0.375]);
    assertEquals(top_logprobs[0], null);
    assertEquals(top_logprobs[1], { a: -0.125, b: -0.25 });
    assertEquals(usage!.completion_tokens, 8);
  }));

Deno.test("completions: an incomplete last character is one U+FFFD, also in a stream", () =>
  withServer(async ({ post }) => {
    const ask = { model: "parts", prompt: [2], max_tokens: 4, logprobs: 0 };
    const { choices: [{ text, logprobs }] } = await answer(await post("/v1/completions", ask));
    assertEquals(text, "\u00e9\ufffd");
    const events = await eventsOf(await post("/v1/completions", { ...ask, stream: true })) as unknown as Answer[];
    assertEquals(events.map(({ choices }) => choices[0].text).join(""), text);
    assertEquals(events.flatMap(({ choices }) => choices[0].logprobs.tokens), logprobs.tokens);
  }));

Deno.test("completions: the joined pieces of a stream equal the plain answer", () =>
  withServer(async ({ post }) => {
    const cases = [
      { prompt: "abc", max_tokens: 9, stop: ["gh", "zz"], logprobs: 2 },
      { prompt: ["a", "x"], n: 3, max_tokens: 4, echo: true, logprobs: 0 },
      { prompt: [[1, 2], [3]], max_tokens: 3, echo: true },
      { prompt: "ab", max_tokens: 0, echo: true, logprobs: 1 },
      { prompt: "ab", max_tokens: 0, echo: true, n: 2 },
      { prompt: "w", max_tokens: 20, stop: "a" },
      {},
    ];
    for (const one of cases) {
      const ask = { model: "letters", ...one }, plain = await answer(await post("/v1/completions", ask));
      const streamed = { ...ask, stream: true, stream_options: { include_usage: true } };
      const events = await eventsOf(await post("/v1/completions", streamed)) as unknown as Answer[];
      const last = events.pop()!;
      assertEquals(last.choices, []);
      assertEquals(last.usage, plain.usage);
      assert(events.every(({ usage, id }) => usage === null && id === last.id));
      for (const choice of plain.choices) {
        const own = events.flatMap(({ choices }) => choices).filter(({ index }) => index === choice.index);
        assertEquals(own.map(({ text }) => text).join(""), choice.text);
        assertEquals(own.at(-1)!.finish_reason, choice.finish_reason);
        assert(own.slice(0, -1).every(({ finish_reason }) => finish_reason === null));
        if (!choice.logprobs) continue;
        for (const list of ["tokens", "token_logprobs", "top_logprobs", "text_offset"] as const) {
          assertEquals<unknown>(own.flatMap(({ logprobs }) => logprobs[list] as unknown[]), choice.logprobs[list]);
        }
      }
    }
  }));

Deno.test("completions: a text ends before its stop string, whose tokens have no log-probabilities", () =>
  withServer(async ({ post }) => {
    const ask = { model: "letters", prompt: "a", max_tokens: 20, stop: "fgh", logprobs: 0 };
    const { choices: [{ text, finish_reason, logprobs }], usage } = await answer(await post("/v1/completions", ask));
    assertEquals([text, finish_reason], ["bcde", "stop"]);
    assertEquals(logprobs.tokens, [..."bcde"]);
    assertEquals(usage!.completion_tokens, 7); // includes the three tokens of the stop string
  }));

Deno.test("completions: best_of returns the texts with the highest mean log-probability, and counts all tokens", () =>
  withServer(async ({ post }) => {
    const ask = { model: "letters", prompt: "a", max_tokens: 3, best_of: 3, n: 2 };
    const { choices, usage } = await answer(await post("/v1/completions", ask));
    // Text i begins i letters later. The log-probability of each token is −(id + 1) / 8, minus i in text i.
    assertEquals(choices.map(({ text, index }) => [text, index]), [["bcd", 0], ["cde", 1]]);
    assertEquals(usage!.completion_tokens, 9);
  }));

Deno.test("completions: choices are in the order of prompts; null counts as a missing field", () =>
  withServer(async ({ post, engine }) => {
    const nulls = {
      logprobs: null,
      seed: null,
      stop: null,
      logit_bias: null,
      user: null,
      echo: null,
      max_tokens: null,
    };
    const ask = { model: "letters", prompt: ["a", "k"], n: 2, ...nulls };
    const { choices } = await answer(await post("/v1/completions", ask));
    assertEquals(choices.map(({ text }) => text.slice(0, 2)), ["bc", "cd", "lm", "mn"]);
    assertEquals(choices.map(({ index }) => index), [0, 1, 2, 3]);
    assertEquals(engine.requests[0].maxNewTokens, 16);
  }));

Deno.test("completions: all parameters reach the engine", () =>
  withServer(async ({ post, engine }) => {
    const shape = { temperature: 0.5, top_p: 0.9, top_k: 5, min_p: 0.1, frequency_penalty: 1, presence_penalty: -1 };
    const ask = {
      model: "letters",
      prompt: "a",
      ...shape,
      seed: 7,
      stop: ["x", "y"],
      logit_bias: { "3": -100, "4": 2 },
    };
    await answer(await post("/v1/completions", ask));
    const [{ logitBias, ...request }] = engine.requests;
    assertEquals([...logitBias], [[3, -100], [4, 2]]);
    assertEquals(request, {
      ...{ model: "letters", prompt: [0], count: 1, maxNewTokens: 16, temperature: 0.5, topP: 0.9, topK: 5, minP: 0.1 },
      ...{ frequencyPenalty: 1, presencePenalty: -1, seed: 7, stop: ["x", "y"] },
    });
    await answer(await post("/v1/completions", { model: "letters" }));
    assertEquals(engine.requests[1].prompt, [30]); // <|endoftext|>
    await answer(await post("/v1/engines/letters/completions", { prompt: "a", seed: -3 }));
    assertEquals(engine.requests[2].model, "letters");
    assertEquals(engine.requests[2].seed, 2 ** 51 + 3);
  }));

Deno.test("chats: the first event has the role, the last one the finish reason, and usage is only sent on request", () =>
  withServer(async ({ post }) => {
    const messages = [{ role: "developer", content: "be kind" }, {
      role: "user",
      content: [{ type: "text", text: "hi" }],
    }];
    const ask = { model: "chats", messages, max_completion_tokens: 4, n: 2 };
    const plain = await answer(await post("/v1/chat/completions", ask));
    const events = await eventsOf(await post("/v1/chat/completions", { ...ask, stream: true })) as unknown as Answer[];
    assert(events.every(({ choices, usage }) => choices.length === 1 && usage === undefined));
    for (const { index, message, finish_reason } of plain.choices) {
      const own = events.map(({ choices }) => choices[0]).filter((choice) => choice.index === index);
      assertEquals(own[0].delta.role, "assistant");
      assertEquals(own.map(({ delta }) => delta.content ?? "").join(""), message.content);
      assertEquals(own.at(-1)!.delta, {});
      assertEquals(own.at(-1)!.finish_reason, finish_reason);
    }
  }));

Deno.test("chats: the template's end of a turn ends the answer, and special tokens in messages are text", () =>
  withServer(async ({ post, engine }) => {
    const end = chats.specialTokens!.get("<|im_end|>")!;
    const messages = [{ role: "user", content: "hi<|im_end|>" }];
    const refused = await post("/v1/chat/completions", { model: "chats", messages });
    assertEquals(refused.status, 400); // the vocabulary does not have the characters < | >, and _
    await refused.body?.cancel();
    await answer(await post("/v1/chat/completions", { model: "chats", messages: [{ role: "user", content: "hi" }] }));
    const [{ endIds, spoken, prompt, maxNewTokens }] = engine.requests;
    assertEquals([endIds, spoken, prompt.length + maxNewTokens], [[end], true, 64]);
    assertEquals(prompt.filter((id) => id === end).length, 1);
    // The model ends its turn at once, so the text is empty.
    const ask = {
      model: "chats",
      messages: [{ role: "user", content: "hi" }],
      logit_bias: { [end]: 100 },
      logprobs: true,
    };
    const { choices: [{ message, finish_reason, logprobs }] } = await answer(await post("/v1/chat/completions", ask));
    assertEquals([message.content, finish_reason], ["", "stop"]);
    assertEquals(logprobs as unknown, { content: [], refusal: null });
  }));

Deno.test("chats: a template that loops or grows endlessly is a 400 in time, and streams continue meanwhile", () =>
  withServer(async ({ post, engine }) => {
    const sources = {
      loops: "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      grows:
        "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
      refuses: "{{ raise_exception('Roles take turns' if messages|length == 1 else 'No') }}",
    };
    for (const [id, source] of Object.entries(sources)) {
      const seconds = id === "loops" ? 1 : 30;
      const template = new ChatTemplate(source, { name: "The chat template", seconds, megabytes: 64 });
      engine.all.push(served(id, chats, { template }));
    }
    engine.delay = 40;
    const stream = await post("/v1/completions", { model: "letters", prompt: "a", max_tokens: 60, stream: true });
    let pieces = 0;
    const reading = (async () => {
      for await (const _ of stream.body!) pieces++;
    })();
    for (const id of Object.keys(sources)) {
      const before = pieces;
      const response = await post("/v1/chat/completions", { ...say("hi"), model: id }),
        { error } = await response.json();
      assertEquals([response.status, error.param], [400, "messages"], id);
      assertEquals(error.code, id === "refuses" ? "template_refused" : "template_failed");
      assert(id !== "loops" || pieces > before + 4, `${pieces - before} pieces`);
      assert(id !== "refuses" || error.message.endsWith("the chat template of refuses says: No"), error.message);
    }
    await reading;
  }));

Deno.test("responses: events are numbered, and joined they equal the plain answer", () =>
  withServer(async ({ post, engine }) => {
    const ask = { model: "chats", input: "hi", instructions: "be kind", max_output_tokens: 5 };
    const whole = await (await post("/v1/responses", ask)).json();
    assertEquals([whole.status, whole.incomplete_details], ["incomplete", { reason: "max_output_tokens" }]);
    const events = await eventsOf(await post("/v1/responses", { ...ask, stream: true }));
    assertEquals(events.map(({ sequence_number }) => sequence_number), events.map((_, i) => i));
    const [text] = whole.output[0].content;
    assertEquals(
      events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta).join(""),
      text.text,
    );
    const last = events.at(-1) as { type: string; response: typeof whole };
    assertEquals(last.type, "response.incomplete");
    assertEquals(last.response.output[0].content, whole.output[0].content);
    engine.failure = { after: 2, error: new TypeError("at 0x7fff1234") };
    const broken = (await eventsOf(await post("/v1/responses", { ...ask, stream: true }))).at(-1)!;
    assertEquals([broken.type, broken.code], ["error", "internal_error"]);
  }));

Deno.test("embeddings: vectors have length 1, are floats or base64, and are truncated on request", () =>
  withServer(async ({ post }) => {
    const ask = { model: "letters", input: ["a", "b"] };
    const { data } = await (await post("/v1/embeddings", ask)).json();
    assertEquals(data[0].embedding.map((x: number) => Math.round(x * 1e6)), [600000, 800000, 0, 0]);
    const packed = await (await post("/v1/embeddings", { ...ask, encoding_format: "base64" })).json();
    const view = new DataView(Uint8Array.fromBase64(packed.data[1].embedding).buffer);
    assertEquals([0, 4, 8, 12].map((at) => view.getFloat32(at, true)), data[1].embedding);
    const cut = await (await post("/v1/embeddings", { ...ask, dimensions: 1 })).json();
    assertEquals(cut.data[0].embedding, [1]);
  }));

Deno.test("score: log-probabilities of continuations, which are encoded together with the prompt", () =>
  withServer(async ({ post }) => {
    const ask = { model: "letters", prompt: "ab", continuations: ["c", "cz", [3]] };
    const { data, usage } = await (await post("/v1/score", ask)).json();
    assertEquals(data.map(({ logprob }: { logprob: number }) => logprob), [-0.375, -3.625, -0.5]);
    assertEquals(data.map(({ is_greedy }: { is_greedy: boolean }) => is_greedy), [true, false, false]);
    assertEquals(data[1].tokens, ["c", "z"]);
    assertEquals(usage.prompt_tokens, 10);
    // "a" and "bb" are encoded as "ab", "b". The prompt alone has one token, so only the second token is scored.
    const joined = await (await post("/v1/score", { model: "parts", prompt: "a", continuations: ["bb"] })).json();
    assertEquals(joined.data[0].tokens, ["b"]);
  }));

const C = "/v1/completions", H = "/v1/chat/completions", R = "/v1/responses", E = "/v1/embeddings", S = "/v1/score";
const long = "a".repeat(65);
Deno.test("bad input: the answer is 400 with the parameter's name, before anything is computed", () =>
  withServer(async ({ post, engine, errors }) => {
    engine.all.push(served("plain", letters), served("large", letters, { blockSize: 4096 }));
    const cases: [path: string, body: Record<string, unknown>, param: string | null, code?: string][] = [
      [C, {}, "model", "missing_required_parameter"],
      [C, { model: 3 }, "model", "invalid_type"],
      [C, { model: "" }, "model"],
      [C, { model: "letters", promt: "a" }, "promt", "unknown_parameter"],
      [C, { model: "letters", ["__proto__"]: { a: 1 } }, "__proto__", "unknown_parameter"],
      [C, { model: "letters", prompt: 5 }, "prompt", "invalid_type"],
      [C, { model: "letters", prompt: [] }, "prompt"],
      [C, { model: "letters", prompt: [[]] }, "prompt[0]"],
      [C, { model: "letters", prompt: [1, "a"] }, "prompt[1]", "invalid_type"],
      [C, { model: "letters", prompt: [1.5] }, "prompt[0]", "invalid_type"],
      [C, { model: "letters", prompt: [-1] }, "prompt[0]"],
      [C, { model: "letters", prompt: [31] }, "prompt"],
      [C, { model: "letters", prompt: "A" }, "prompt", "unknown_character"],
      [C, { model: "letters", prompt: ["a", "A"] }, "prompt[1]", "unknown_character"],
      [C, { model: "letters", prompt: long }, "prompt", "context_length_exceeded"],
      [C, { model: "letters", prompt: "a".repeat(200_000) }, "prompt", "context_length_exceeded"],
      [C, { model: "letters", prompt: "a", max_tokens: 64 }, "prompt", "context_length_exceeded"],
      [C, { model: "letters", prompt: "a", max_tokens: -1 }, "max_tokens"],
      [C, { model: "letters", prompt: "a", max_tokens: 1e9 }, "max_tokens"],
      [C, { model: "letters", prompt: "a", max_tokens: 0 }, "max_tokens"],
      [C, { model: "letters", temperature: 2.1 }, "temperature"],
      [C, { model: "letters", temperature: "1" }, "temperature", "invalid_type"],
      [C, { model: "letters", top_p: -0.1 }, "top_p"],
      [C, { model: "letters", n: 1e6 }, "n"],
      [C, { model: "letters", n: 0 }, "n"],
      [C, { model: "letters", best_of: 1e9 }, "best_of"],
      [C, { model: "letters", n: 3, best_of: 2 }, "best_of"],
      [C, { model: "letters", best_of: 2, stream: true }, "best_of"],
      [C, { model: "letters", prompt: Array(20).fill("a"), n: 10 }, "n"],
      [C, { model: "letters", prompt: Array(129).fill("a") }, "prompt"],
      [C, { model: "letters", logprobs: 21 }, "logprobs"],
      [C, { model: "letters", logprobs: true }, "logprobs", "invalid_type"],
      [C, { model: "letters", stop: [..."abcde"] }, "stop"],
      [C, { model: "letters", stop: "" }, "stop"],
      [C, { model: "letters", stop: ["a", 5] }, "stop[1]", "invalid_type"],
      [C, { model: "letters", logit_bias: { a: 1 } }, "logit_bias"],
      [C, { model: "letters", logit_bias: { "99": 1 } }, "logit_bias"],
      [C, { model: "letters", logit_bias: { "1": 101 } }, "logit_bias[1]"],
      [C, { model: "letters", logit_bias: [1] }, "logit_bias", "invalid_type"],
      [C, { model: "letters", frequency_penalty: 3 }, "frequency_penalty"],
      [C, { model: "letters", seed: 1.5 }, "seed", "invalid_type"],
      [C, { model: "letters", suffix: "b" }, "suffix", "unsupported_parameter"],
      [C, { model: "letters", stream_options: { include_usage: true } }, "stream_options"],
      [C, { model: "letters", stream: true, stream_options: { usage: true } }, "stream_options.usage"],
      [H, { model: "chats", messages: [] }, "messages"],
      [H, { model: "chats", messages: [{ role: "tool", content: "a" }] }, "messages[0].role"],
      [H, { model: "chats", messages: [{ role: "user" }] }, "messages[0].content", "missing_required_parameter"],
      [H, say([{ type: "image_url", image_url: { url: "x" } }]), "messages[0].content[0].type", "unsupported_value"],
      [H, say([{ type: "text" }]), "messages[0].content[0].text", "invalid_type"],
      [H, say(long), "messages", "context_length_exceeded"],
      [H, { ...say("hi"), top_logprobs: 2 }, "top_logprobs"],
      [H, { ...say("hi"), tools: [{ type: "function" }] }, "tools", "unsupported_parameter"],
      [H, { ...say("hi"), response_format: { type: "json_object" } }, "response_format", "unsupported_parameter"],
      [H, { ...say("hi"), store: true }, "store", "unsupported_parameter"],
      [H, { ...say("hi"), chat_template: "{{ 1 }}" }, "chat_template", "unknown_parameter"],
      [H, { ...say("hi"), model: "plain" }, "model", "unsupported_model"],
      [R, { model: "chats", input: "hi", previous_response_id: "resp_1" }, "previous_response_id"],
      [R, { model: "chats", input: "hi", background: true }, "background", "unsupported_parameter"],
      [R, { model: "chats", input: [{ type: "function_call_output", role: "user", content: "" }] }, "input[0].type"],
      [R, { model: "chats", input: "hi", metadata: { a: 5 } }, "metadata[a]", "invalid_type"],
      [E, { model: "letters", input: "" }, "input"],
      [E, { model: "letters", input: Array(2049).fill("a") }, "input"],
      [E, { model: "large", input: Array(40).fill(Array(4000).fill(1)) }, "input"],
      [E, { model: "letters", input: "a", dimensions: 5 }, "dimensions"],
      [E, { model: "letters", input: "a", encoding_format: "hex" }, "encoding_format"],
      [S, { model: "letters", prompt: "a", continuations: [""] }, "continuations[0]"],
      [S, { model: "letters", prompt: "a", continuations: [] }, "continuations"],
    ];
    for (const [path, body, param, code] of cases) {
      const text = JSON.stringify(body), response = await post(path, text);
      const { error } = await response.json();
      assertEquals([response.status, error.param], [400, param], `${path} ${text.slice(0, 100)}: ${error.message}`);
      assertEquals(error.type, "invalid_request_error");
      if (code) assertEquals(error.code, code, error.message);
    }
    assertEquals(engine.requests, []);
    assertEquals(errors, []);
  }));

Deno.test("bad input: invalid JSON, unknown paths and unknown methods are refused", () =>
  withServer(async ({ post, get, url }) => {
    const status = async (response: Promise<Response>, code: string) => {
      const { error } = await (await response).json();
      assertEquals(Object.keys(error), ["message", "type", "param", "code"]);
      assertEquals(error.code, code);
      return (await response).status;
    };
    assertEquals(await status(post(C, "{"), "invalid_json"), 400);
    assertEquals(await status(post(C, ""), "invalid_json"), 400);
    assertEquals(await status(post(C, "[]"), "invalid_type"), 400);
    assertEquals(await status(post(C, Uint8Array.of(0x22, 0xff, 0x22)), "invalid_json"), 400);
    assertEquals(await status(post(C, "[".repeat(500_000)), "invalid_json"), 400);
    assertEquals(await status(post(C, `"${"[".repeat(100)}\\"${"[".repeat(100)}"`), "invalid_type"), 400);
    assertEquals(await status(post(C, "a".repeat(2 ** 20 + 1)), "body_too_large"), 413);
    assertEquals(await status(post(C, "{}", { "content-type": "text/plain" }), "unsupported_media_type"), 415);
    const packed = new Uint8Array(
      await new Response(
        new Blob([JSON.stringify({ model: "letters", user: "a".repeat(1e7) })]).stream().pipeThrough(
          new CompressionStream("gzip"),
        ),
      ).arrayBuffer(),
    );
    assertEquals(await status(post(C, packed, { "content-encoding": "gzip" }), "unsupported_media_type"), 415);
    assertEquals(await status(get("/v1/nothing"), "unknown_url"), 404);
    assertEquals(await status(get("/v1/models/%ff"), "invalid_value"), 400);
    assertEquals(await status(get("/v1/models/..%2f..%2fetc"), "model_not_found"), 404);
    const wrong = await fetch(`${url}${C}`);
    assertEquals([wrong.status, wrong.headers.get("allow")], [405, "POST"]);
    await wrong.body?.cancel();
    const head = await fetch(`${url}/health`, { method: "HEAD" });
    assertEquals([head.status, await head.text()], [200, ""]);
    assertEquals((await get("/v1/models/")).status, 200);
  }));

Deno.test("models: a name with a slash is one segment; unknown models are 404", () =>
  withServer(async ({ get, post, engine }) => {
    engine.all.push(served("ft:a/b", letters));
    assertEquals((await (await get("/v1/models/ft:a%2Fb")).json()).id, "ft:a/b");
    const response = await post(C, { model: "nope" }), { error } = await response.json();
    assertEquals([response.status, error.code, error.param], [404, "model_not_found", "model"]);
  }));

Deno.test("errors: a full queue and a shutdown say when to retry; the text of an exception is never sent", () =>
  withServer(async ({ post, get, engine, errors }) => {
    const cases: [Error, number, string, string | null][] = [
      [new QueueFull(3), 429, "rate_limit_exceeded", "3"],
      [new Draining(), 503, "shutting_down", "5"],
      [new Unavailable(7), 503, "model_unavailable", "7"],
      [new DeviceError("buffer at 0x7fff1234 /home/user"), 503, "out_of_memory", "10"],
      [new TypeError("buffer at 0x7fff1234 /home/user"), 500, "internal_error", null],
    ];
    for (const [refusal, status, code, after] of cases) {
      engine.refusal = refusal;
      for (const stream of [false, true]) {
        const response = await post(C, { model: "letters", stream }), { error } = await response.json();
        assertEquals([response.status, error.code, response.headers.get("retry-after")], [status, code, after]);
        assert(!/0x|home/.test(error.message));
      }
    }
    assertEquals(errors.length, 4);
    engine.refusal = undefined;
    engine.failure = { after: 2, error: new TypeError("at 0x7fff1234") };
    const response = await post(C, { model: "letters", prompt: "a", stream: true });
    assertEquals(response.status, 200);
    const text = await response.text();
    assert(!text.includes("[DONE]") && !text.includes("0x7fff"));
    const [, , last] = text.trim().split("\n\n");
    assertEquals(JSON.parse(last.slice(6)).error.code, "internal_error");
    engine.health = { alive: false, ready: false, lastStep: 0 };
    assertEquals((await get("/health")).status, 503);
    engine.health = { alive: true, ready: false, lastStep: 1e6 };
    assertEquals((await get("/health")).status, 200);
    const ready = await get("/health/ready");
    assertEquals([ready.status, (await ready.json()).status], [503, "not ready"]);
  }));

Deno.test("errors: a request with several prompts is refused as a whole", () =>
  withServer(async ({ post, engine }) => {
    const take = engine.generate.bind(engine);
    engine.generate = (...args) => {
      if (engine.requests.length > 0) throw new QueueFull(1);
      return take(...args);
    };
    const response = await post(C, { model: "letters", prompt: ["a", "b", "c"] });
    assertEquals([response.status, (await response.json()).error.code], [429, "rate_limit_exceeded"]);
    assertEquals([engine.requests.length, engine.running, engine.tokens], [1, 0, 0]);
  }));

Deno.test("events: comments are sent during silence, and an error is an event", async () => {
  const pinged = Promise.withResolvers<void>();
  async function* slow() {
    yield event({ a: 1 });
    await pinged.promise;
    yield event({ b: 2 });
    throw new Error("secret");
  }
  const response = eventStream(slow(), () => new ApiError(500, "told"), 15);
  let text = "";
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (text.endsWith(": ping\n\n")) pinged.resolve();
  }
  assertMatch(text, /^data: \{"a":1\}\n\n(: ping\n\n)+data: \{"b":2\}\n\ndata: \{"error":\{"message":"told"/);
  assertEquals(response.headers.get("content-type"), "text/event-stream");
});

Deno.test("bad input: a text that is much too long is not encoded to its end, and other requests get turns", () =>
  withServer(async ({ post, get, engine }) => {
    let read = 0, encoded = 0;
    const encode = (text: string, options?: EncodeOptions) => {
      read += text.length;
      if (text.length === 64) { // a slow tokenizer
        for (const end = performance.now() + 5; performance.now() < end;);
        encoded++;
      }
      return letters.encode(text, options);
    };
    const counting: Tokenizer = {
      ...{ encode, vocabSize: letters.vocabSize, specialTokens: letters.specialTokens, toJSON: () => letters.toJSON() },
      ...{
        decode: (ids) => letters.decode(ids),
        decoder: () => letters.decoder(),
        lengthOf: (id) => letters.lengthOf(id),
      },
      withSpecialTokens: (...args) => letters.withSpecialTokens(...args),
    };
    engine.all.push(served("counting", counting));
    const long = await post(C, { model: "counting", prompt: ["a".repeat(63), "a".repeat(250), "a".repeat(2000)] });
    assertEquals([long.status, (await long.json()).error.param], [400, "prompt[1]"]);
    read = 0;
    const longer = await post(C, { model: "counting", prompt: `${"a".repeat(700)}A` });
    assertEquals([longer.status, (await longer.json()).error.code], [400, "context_length_exceeded"]);
    assert(read <= 512, `${read}`);
    const input = Array(200).fill("a".repeat(64)), embedding = post(E, { model: "counting", input });
    while (encoded === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals((await get("/health")).status, 200);
    assert(encoded < 200, "the other request was answered after all texts were encoded");
    assertEquals([(await embedding).status, encoded], [200, 200]);
  }));
