/** Authentication: keys, hosts, origins, and models of other keys. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { CheckpointError, ConfigError } from "../../src/errors.ts";
import { Access, KeyRing } from "../../src/server/auth.ts";
import { handler, type Route, route } from "../../src/server/routes.ts";
import { servingRoutes } from "../../src/server/server.ts";
import type { Jobs } from "../../src/server/jobs.ts";
import { jobRoutes } from "../../src/server/routes_jobs.ts";
import { pageRoutes } from "../../src/server/routes_page.ts";
import { runRoutes } from "../../src/server/routes_runs.ts";
import { stateRoutes } from "../../src/server/routes_state.ts";
import { inFolder } from "../testing.ts";
import { FakeEngine, letters, served, withServer } from "./fake_engine.ts";

const all: readonly Route[] = [...servingRoutes, ...stateRoutes(servingRoutes, new Map())];
/** A route that needs a key, like the routes for files and jobs. */
const guarded = route({
  ...{ method: "GET", path: "/v1/files", audience: "key", summary: "", answers: {} },
  answer: ({ key }) => Response.json({ key }),
});

/** Sends requests without a listener, so that headers such as Host can have any value. */
function asking(access: Access, routes: readonly Route[] = [...all, guarded], engine = new FakeEngine()) {
  const answer = handler({ engine, access, onError: (error) => assert(false, `${error}`) }, routes);
  return async (path: string, headers: Record<string, string> = {}, init: RequestInit = {}) => {
    const response = await answer(
      new Request(`http://localhost${path}`, { ...init, headers: { host: "127.0.0.1:8000", ...headers } }),
    );
    return response;
  };
}
const ring = async (folder: string) => {
  const keys = await KeyRing.open(`${folder}/keys.json`);
  return { keys, one: await keys.make("one"), two: await keys.make("two") };
};
const local = { hostname: "127.0.0.1" }, lan = { hostname: "0.0.0.0" };
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const status = async (response: Promise<Response>) => (await response).status;

Deno.test("keys: the file holds only hashes, and only a complete key is valid", () =>
  inFolder(async (folder) => {
    const { keys, one, two } = await ring(folder), text = await Deno.readTextFile(keys.path);
    assertMatch(one.key, /^sk-nanogpt-[\w-]{43}$/);
    assert(!text.includes(one.key) && !text.includes(one.key.slice(11)));
    const again = await KeyRing.open(keys.path);
    assertEquals(await again.find(one.key), one.id);
    assertEquals(await again.find(two.key), two.id);
    for (const wrong of [one.key.slice(0, -1), `${one.key}x`, one.key.toUpperCase(), "", one.id]) {
      assertEquals(await again.find(wrong), undefined);
    }
    await assertRejects(() => keys.revoke("key-none"), ConfigError, one.id);
    await Deno.writeTextFile(keys.path, '{"keys":[{"id":"a","hash":"zz"}]}');
    await assertRejects(() => KeyRing.open(keys.path), CheckpointError, "damaged");
  }));

Deno.test("keys: a key that another process revokes is refused within a second", () =>
  inFolder(async (folder) => {
    const { keys, one, two } = await ring(folder), ask = asking(new Access({ ...local, keys }));
    assertEquals(await status(ask("/v1/files", bearer(one.key))), 200);
    await (await KeyRing.open(keys.path)).revoke(one.id);
    await Deno.utime(keys.path, 1, 1); // the two writes could be closer than the file system's clock can tell
    const { now } = performance, later = now.call(performance) + 1000;
    performance.now = () => later;
    try {
      assertEquals(await status(ask("/v1/files", bearer(one.key))), 401);
      assertEquals(await status(ask("/v1/files", bearer(two.key))), 200);
    } finally {
      performance.now = now;
    }
  }));

Deno.test("default-deny: from other machines every route but health needs a key, and no other header is enough", () =>
  inFolder(async (folder) => {
    const { keys, one } = await ring(folder), ask = asking(new Access({ ...lan, keys }));
    for (const { method, path } of [...all, guarded]) {
      const at = path.replace(/\{\w+\}/, "letters"), open = path.startsWith("/health");
      for (const wrong of [{}, bearer("sk-no"), { "x-api-key": one.key }, { authorization: `Basic ${one.key}` }]) {
        const response = await ask(at, wrong as Record<string, string>, { method });
        assertEquals(response.status, open ? 200 : 401, `${method} ${path}`);
        if (!open) assertEquals(response.headers.get("www-authenticate"), "Bearer");
      }
    }
    assertEquals(await status(ask("/v1/models", bearer(one.key))), 200);
    assertEquals(await status(ask(`/v1/models?key=${one.key}`)), 401);
  }));

Deno.test("default-deny: some routes are open, some are for this machine, and all other routes need a key", async () => {
  const jobs = jobRoutes({ files: {}, options: { configs: [] } } as unknown as Jobs);
  const every = [...all, ...jobs, ...runRoutes([]), ...await pageRoutes()];
  const of = (audience: string) =>
    every.filter((route) => route.audience === audience).map(({ method, path }) => `${method} ${path}`).sort();
  assertEquals(of("open"), ["GET /", "GET /health", "GET /health/ready", "GET /page/{file}"]);
  assertEquals(of("local"), [
    ...["GET /metrics", "GET /openapi.json", "GET /v1/models", "GET /v1/models/{model}", "POST /v1/chat/completions"],
    ...["POST /v1/completions", "POST /v1/embeddings", "POST /v1/engines/{engine}/completions", "POST /v1/responses"],
    "POST /v1/score",
  ]);
  assert(of("key").length > 10 && of("key").every((route) => / \/v1\/(files|fine_tuning|models|runs)/.test(route)));
});

Deno.test("default-deny: on this machine models need no key, files do, and a proxy does not count as this machine", () =>
  inFolder(async (folder) => {
    const { keys, one } = await ring(folder), ask = asking(new Access({ ...local, keys }));
    for (const headers of [{}, bearer("none"), bearer(one.key)]) {
      assertEquals(await status(ask("/v1/models", headers as Record<string, string>)), 200);
    }
    assertEquals(await status(ask("/v1/files")), 401);
    assertEquals(await status(ask("/v1/files", bearer("none"))), 401);
    const mine = await ask("/v1/files", bearer(one.key));
    assertEquals(await mine.json(), { key: one.id });
    for (const header of ["x-forwarded-for", "forwarded", "x-real-ip", "via"]) {
      assertEquals(await status(ask("/v1/models", { [header]: "10.0.0.1" })), 401);
    }
    const shown = asking(new Access({ ...local, keys, publicHost: "gpt.example.org" }));
    assertEquals(await status(shown("/v1/models", { host: "gpt.example.org" })), 401);
    assertEquals(await status(shown("/v1/models")), 401);
    assertEquals(await status(shown("/v1/models", { host: "gpt.example.org", ...bearer(one.key) })), 200);
    assertEquals(await status(shown("/v1/models", { host: "evil.org", ...bearer(one.key) })), 403);
  }));

Deno.test("DNS rebinding: a foreign name that resolves to this machine is refused", async () => {
  const ask = asking(new Access(local)), of = (host: string) => status(ask("/v1/models", { host }));
  for (const host of ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.2:1", "[::1]:8000", "LOCALHOST"]) {
    assertEquals(await of(host), 200, host);
  }
  const wrong = ["evil.org", "evil.org:8000", "localhost.evil.org", "127.0.0.1.evil.org", "192.168.1.5", "[::2]", ""];
  for (const host of [...wrong, "127.0.0.1, localhost", "localhost:80:80", "localhost@evil.org"]) {
    assertEquals(await of(host), 403, host);
    assertEquals(await status(ask("/health", { host })), 403);
  }
});

Deno.test("from other machines: any address is accepted as Host, and names are not", () =>
  inFolder(async (folder) => {
    const { keys, one } = await ring(folder), ask = asking(new Access({ ...lan, keys }));
    const of = (host: string) => status(ask("/v1/models", { host, ...bearer(one.key) }));
    for (const host of ["192.168.1.5:8000", "[fe80::1]:8000", "localhost"]) assertEquals(await of(host), 200);
    for (const host of ["evil.org", "my-machine"]) assertEquals(await of(host), 403);
  }));

Deno.test("origins: only the server's own page may send requests", async () => {
  const ask = asking(new Access(local)), of = (origin: string) => status(ask("/v1/models", { origin }));
  assertEquals(await of("http://127.0.0.1:8000"), 200);
  const wrong = [
    "null",
    "http://evil.org",
    "http://localhost:8000",
    "http://127.0.0.1:9000",
    "file://127.0.0.1:8000",
    "",
  ];
  for (const origin of [...wrong, "http://127.0.0.1:8000/", "http://127.0.0.1:8000.evil.org"]) {
    assertEquals(await of(origin), 403, origin);
  }
  assertEquals(await status(ask("/v1/models", { "sec-fetch-site": "cross-site" })), 403);
  assertEquals(await status(ask("/v1/models", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" })), 200);
  const proxied = asking(new Access({ ...local, publicHost: "gpt.example.org" }));
  assertEquals(await status(proxied("/health", { origin: "https://gpt.example.org" })), 200);
  assertEquals(await status(proxied("/health", { origin: "https://evil.example.org" })), 403);
  // A form on another site can send JSON as plain text. This content type is refused, even without the site's Origin.
  const form = { method: "POST", body: '{"model":"letters"}' };
  assertEquals(await status(ask("/v1/completions", { "content-type": "text/plain" }, form)), 415);
});

Deno.test("another key's models are not listed, not found and cannot generate", () =>
  inFolder(async (folder) => {
    const { keys, one, two } = await ring(folder);
    await withServer(async ({ get, post, engine }) => {
      engine.all.push(served("ft:letters:mine", letters, { owner: one.id }));
      const ids = async (key: string) => (await (await get("/v1/models", bearer(key))).json()).data.length;
      assertEquals([await ids(one.key), await ids(two.key), await ids("none")], [4, 3, 3]);
      const routes: [string, object][] = [
        ["/v1/completions", { prompt: "a" }],
        ["/v1/embeddings", { input: "a" }],
        ["/v1/score", { continuations: ["ab"] }],
        ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
        ["/v1/responses", { input: "a" }],
      ];
      for (const [path, more] of routes) {
        const ask = { model: "ft:letters:mine", ...more };
        const other = await post(path, ask, bearer(two.key)), { error } = await other.json();
        assertEquals([other.status, error.code], [404, "model_not_found"]);
        const unknown = await post(path, { ...ask, model: "ft:letters:none" }, bearer(two.key));
        // The answer does not tell whether a model exists that belongs to another key.
        assertEquals((await unknown.json()).error.message, error.message.replace("mine", "none"));
        const own = await post(path, ask, bearer(one.key));
        assertEquals(own.status, /chat|responses/.test(path) ? 400 : 200, path); // 400: the model has no chat template
        await own.body?.cancel();
      }
      assert(engine.requests.every(({ key }) => key === one.id)); // so that the engine shares prefixes within a key
    }, { access: { keys } });
  }));

Deno.test("answers: browsers neither store them nor guess their type, and each has an id", () =>
  withServer(async ({ get }) => {
    const { headers, body } = await get("/v1/models");
    await body?.cancel();
    assertEquals(headers.get("x-content-type-options"), "nosniff");
    assertEquals(headers.get("cache-control"), "no-store");
    assertMatch(headers.get("x-request-id")!, /^req_[0-9a-f]{32}$/);
    assertEquals(headers.get("access-control-allow-origin"), null);
  }));
