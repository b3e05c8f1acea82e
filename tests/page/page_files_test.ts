/** The page's served files, its parser of metrics, the code that it shows, and its curves. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Failure } from "../../src/page/api.ts";
import { smoothed } from "../../src/page/curves.ts";
import { fitting } from "../../src/page/fitting.ts";
import { parseMetrics, quantile, total } from "../../src/page/prometheus.ts";
import { python, snippet } from "../../src/page/snippets.ts";
import type { ServedModel } from "../../src/server/engine_api.ts";
import { ApiError } from "../../src/server/errors.ts";
import { metricsText, noMetrics, observe } from "../../src/server/metrics.ts";
import { pageRoutes } from "../../src/server/routes_page.ts";
import { runRoutes } from "../../src/server/routes_runs.ts";
import { KeyRing } from "../../src/server/auth.ts";
import { checkLength } from "../../src/server/texts.ts";
import { withServer } from "../server/fake_engine.ts";
import { inFolder } from "../testing.ts";

/** What the policy forbids, and links to other servers. */
const foreign = /url\(|<img|<iframe|<object|<link[^>]*https?:|@import|\bon\w+="|style="/;

Deno.test("page: every file has its type and a policy that restricts it to this server", async () => {
  await withServer(async ({ get }) => {
    const root = await get("/"), html = await root.text();
    assertEquals([root.status, root.headers.get("content-type")], [200, "text/html; charset=utf-8"]);
    const names = ["base.css", "page.css", "main.ts"], seen = new Set<string>(names);
    for (const name of names) assertStringIncludes(html, `/page/${name}"`);
    assert(!foreign.test(html.replace(/href="data:[^"]*"/, "")), "nothing inline, nothing from other servers");
    for (const name of seen) { // and everything that its modules import
      const response = await get(`/page/${name}`), text = await response.text();
      const type = name.endsWith(".css") ? "css" : "javascript";
      assertEquals([response.status, response.headers.get("content-type")], [200, `text/${type}; charset=utf-8`], name);
      const policy = response.headers.get("content-security-policy")!;
      assertMatch(
        policy,
        /^default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';/,
      );
      assertEquals(response.headers.get("x-content-type-options"), "nosniff");
      for (const [, from] of text.matchAll(/\bfrom "\.\/([^"]+)"/g)) seen.add(from);
      assert(!/^(export )?(interface|type) /m.test(text), `${name}: no types`);
    }
    assertEquals(seen.size >= 18, true);
    for (const path of ["/page/nothing.ts", "/page/..%2Fserver%2Fauth.ts", "/page/README.md", "/page"]) {
      const { status, body } = await get(path);
      await body?.cancel();
      assertEquals(status, 404, path);
    }
  }, { more: await pageRoutes() });
});

Deno.test("page: its files need no key, even if all other routes do", async () => {
  await withServer(async ({ get }) => {
    for (
      const [path, status] of [["/", 200], ["/page/main.ts", 200], ["/v1/models", 401], ["/metrics", 401]] as const
    ) {
      const response = await get(path);
      await response.body?.cancel();
      assertEquals(response.status, status, path);
    }
  }, { more: await pageRoutes(), access: { hostname: "0.0.0.0", publicHost: "example.org" } });
});

Deno.test("runs: complete lines of metrics.jsonl from a byte on, for clients with a key", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/run`);
    const lines = '{"iter":0,"loss":4}\n{"iter":1,"loss":3}\n', keys = await KeyRing.open(`${folder}/keys.json`);
    await Deno.writeTextFile(`${folder}/run/metrics.jsonl`, lines + '{"iter":2,');
    const { key } = await keys.make("test"), headers = { authorization: `Bearer ${key}` };
    const more = runRoutes([{ id: "run", path: `${folder}/run` }, { id: "none", path: `${folder}/model.gguf` }]);
    await withServer(async ({ get }) => {
      const status = async (path: string, with_ = headers) => {
        const response = await get(path, with_ as Record<string, string>);
        await response.body?.cancel();
        return response.status;
      };
      assertEquals(await status("/v1/runs", {} as typeof headers), 401);
      assertEquals((await (await get("/v1/runs", headers)).json()).data, [{ id: "run", object: "run" }]);
      const read = async (after: number) => await (await get(`/v1/runs/run/metrics?after=${after}`, headers)).text();
      assertEquals([await read(0), await read(20), await read(40), await read(1000)], [lines, lines.slice(20), "", ""]);
      assertEquals(await status("/v1/runs/none/metrics"), 404);
      assertEquals(await status("/v1/runs/..%2Frun/metrics"), 404);
      assertEquals(await status("/v1/runs/run/metrics?after=-1"), 400);
    }, { more, access: { keys } });
  });
});

Deno.test("page: it parses the engine's metrics", () => {
  const metrics = noMetrics();
  metrics.generationTokens = 123;
  metrics.promptTokens.computed = 5;
  metrics.promptTokens.cached = 2;
  for (const value of [0.003, 0.004, 0.2]) observe(metrics.firstTokenSeconds, value);
  observe(metrics.queueSeconds, 1000);
  const samples = parseMetrics(metricsText(metrics));
  assertEquals(total(samples, "nanogpt_generation_tokens_total"), 123);
  assertEquals(total(samples, "nanogpt_prompt_tokens_total"), 7);
  assertEquals(quantile(samples, "nanogpt_time_to_first_token_seconds", 0.5), 0.005);
  assertEquals(quantile(samples, "nanogpt_time_to_first_token_seconds", 0.9), 0.25);
  assertEquals(quantile(samples, "nanogpt_queue_seconds", 0.5), Infinity);
  assertEquals(quantile(samples, "nanogpt_inter_token_seconds", 0.5), undefined);
  assertEquals(parseMetrics('a{b="x\\"y\\\\z\\n"} 2'), [{ name: "a", labels: { b: 'x"y\\z\n' }, value: 2 }]);
});

Deno.test("page: requests as code", () => {
  const body = { model: "m", prompt: 'it\'s "so"\n', seed: 1, stream: true, min_p: 0.1 },
    asked = { path: "/v1/completions", body };
  const [curl, py, ts] = (["curl", "python", "typescript"] as const).map((name) =>
    snippet(asked, name, "http://h", true)
  );
  assertStringIncludes(curl, `-d '{`);
  const [, data] = /-d '([^]*)'$/.exec(curl)!;
  assertEquals(JSON.parse(data.replaceAll("'\\''", "'")), body, "as a shell parses it");
  assertStringIncludes(curl, '"Authorization: Bearer $NANOGPT_KEY"');
  assertStringIncludes(py, '    stream=True,\n    extra_body={"min_p": 0.1},\n)');
  assertStringIncludes(ts, 'client.completions.create({\n  "model": "m",');
  assert(!snippet(asked, "curl", "http://h", false).includes("Authorization"));
  assertEquals(python([null, true, { a: "é\n" }]), '[None, True, {"a": "é\\n"}]');
});

Deno.test("page: smoothing is a bias-corrected moving average", () => {
  assertEquals(smoothed([[0, 4], [1, 2]], 0), [[0, 4], [1, 2]]);
  assertEquals(smoothed([[0, 4], [1, 2], [2, 1]], 0.5), [[0, 4], [1, (2 + 2) / 1.5], [2, (1 + 1 + 1) / 1.75]]);
});

Deno.test("page: a text that is too long is shortened by the number of tokens in the server's error", async () => {
  const model = { id: "m", context_length: 100, vocab_size: 50_000, chat: false, loaded: true }, sent: number[] = [];
  await fitting("a".repeat(1000), model, 10, ({ length }) => {
    sent.push(length);
    try {
      checkLength({ blockSize: model.context_length } as ServedModel, length / 2, 10, "prompt"); // two characters a token
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      throw new Failure(error.message, error.status, error.options.code);
    }
    return Promise.resolve();
  });
  assertEquals(sent, [540, 180]); // six characters a token are assumed at first
});
