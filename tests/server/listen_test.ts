/** The listener: slow clients, idle connections, clients that disconnect, shutdown. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Handler, listen, type Listener, type ListenOptions } from "../../src/server/listen.ts";
import { FakeEngine, withServer } from "./fake_engine.ts";

const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
/** Waits for a condition. The limit only ends a test that would never end; a busy machine does not reach it. */
async function until(right: () => boolean, shown: () => string = () => ""): Promise<void> {
  for (const begin = performance.now(); !right(); await wait(5)) {
    if (performance.now() - begin > 60_000) throw new Error(`not within a minute: ${right}; ${shown()}`);
  }
}
const GET = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async function listening(
  handler: Handler,
  body: (listener: Listener) => Promise<void>,
  options: Partial<ListenOptions> = {},
): Promise<void> {
  await using listener = await listen(handler, { port: 0, ...options });
  await body(listener);
}

/** A TCP connection, so that tests can send incomplete and invalid requests. */
class Client {
  text = "";
  closed = false;
  readonly #reading: Promise<void>;
  private constructor(readonly socket: Deno.TcpConn) {
    this.#reading = this.#read();
  }
  static async connect({ port }: { port: number }): Promise<Client> {
    return new Client(await Deno.connect({ port }));
  }
  async #read(): Promise<void> {
    const bytes = new Uint8Array(65536);
    try {
      for (let n; (n = await this.socket.read(bytes)) !== null;) {
        this.text += new TextDecoder().decode(bytes.subarray(0, n));
      }
    } catch {
      // the server has reset the connection
    }
    this.closed = true;
  }
  async send(text: string): Promise<void> {
    await this.socket.write(new TextEncoder().encode(text)).catch(() => {});
  }
  until(right: (client: this) => boolean): Promise<void> {
    return until(() => right(this), () => this.text);
  }
  get status(): string {
    return this.text.slice(9, 12);
  }
  async end(): Promise<void> {
    try {
      this.socket.close();
    } catch {
      // the connection is closed already
    }
    await this.#reading;
  }
}
async function clients(count: number, listener: { port: number }): Promise<Client[]> {
  return await Promise.all(Array.from({ length: count }, () => Client.connect(listener)));
}
const endAll = (all: readonly Client[]) => Promise.all(all.map((client) => client.end()));

Deno.test("listen: a client that sends its headers slowly is disconnected, and others are answered meanwhile", () =>
  listening(() => new Response("hello"), async (listener) => {
    const all = await clients(4, listener), [silent, slow, garbage, large] = all;
    await slow.send("GET / HTTP/1.1\r\nhost: a\r\n");
    await garbage.send("hello\r\n\r\n");
    await large.send(`GET / HTTP/1.1\r\nhost: a\r\nx: ${"a".repeat(20_000)}\r\n\r\n`);
    const drip = setInterval(() => slow.send("x: a\r\n"), 100);
    await garbage.until(({ closed }) => closed);
    await large.until(({ closed }) => closed);
    assertEquals([garbage.status, large.status], ["400", "400"]);
    assert(garbage.text.includes('"code":"bad_request"'));
    assertEquals(await (await fetch(`http://127.0.0.1:${listener.port}`)).text(), "hello");
    await silent.until(({ closed }) => closed);
    await slow.until(({ closed }) => closed);
    clearInterval(drip);
    assertEquals(slow.status, "400");
    await endAll(all);
  }, { headerSeconds: 1 }));

Deno.test("listen: a smuggled request, two lengths, and an invalid target are refused", () =>
  listening(({ url }) => new Response(url), async (listener) => {
    const wrong = [
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
      "GET http://evil.org/ HTTP/1.1\r\nhost: a\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
    ];
    for (const text of [...wrong, "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"]) {
      const client = await Client.connect(listener);
      await client.send(text);
      await client.until(({ text }) => text.length > 12);
      assertEquals(client.status, text.startsWith("TRACE") ? "405" : "400", text);
      await client.end();
    }
  }));

Deno.test("listen: a stalled body is ended, and an unread body is not taken for the next request", () =>
  withServer(async ({ port, url, engine, errors }) => {
    const head = (length: number) =>
      `POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
    const [still, unread] = await clients(2, { port });
    await still.send(head(50) + '{"model"');
    await unread.send(`POST /v1/nothing HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5000000\r\n\r\n${GET}`);
    await unread.until(({ text }) => text.includes("unknown_url"));
    await unread.until(({ closed }) => closed);
    assertEquals(unread.text.match(/HTTP\/1\.1/g)!.length, 1);
    await still.until(({ text }) => text.includes("request_timeout"));
    assertEquals(still.status, "408");
    await endAll([still, unread]);
    const [left] = await clients(1, { port });
    await left.send(head(50) + '{"model"');
    await wait(50);
    await left.end(); // disconnects before its body is complete: not an error for the log
    await wait(50);
    assertEquals([engine.requests.length, errors.length], [0, 0]);
    const response = await fetch(`${url}/health`);
    assertEquals((await response.json()).status, "ok");
  }, { stallSeconds: 0.5 }));

Deno.test("listen: connections are reused, and pipelined requests are answered in order", () =>
  listening(({ url }) => new Response(new URL(url).pathname), async (listener) => {
    const client = await Client.connect(listener);
    await client.send(GET);
    await client.until(({ text }) => text.includes("\r\n\r\n/") || text.includes("\r\n/\r\n"));
    await client.send("GET /b HTTP/1.1\r\nhost: a\r\n\r\nGET /c HTTP/1.1\r\nhost: a\r\n\r\n");
    await client.until(({ text }) => text.includes("/c"));
    assert(client.text.indexOf("/b") < client.text.indexOf("/c"));
    assertEquals(listener.connections, 1);
    await client.end();
  }));

Deno.test("listen: a connection with a thousand waiting requests is closed, and its requests end", () => {
  const held = Promise.withResolvers<Response>();
  let asked = 0, left = 0;
  const hold: Handler = ({ signal }) => {
    asked++;
    signal.addEventListener("abort", () => left++);
    return held.promise;
  };
  const handler: Handler = (request) => request.url.endsWith("/held") ? hold(request) : new Response("a");
  return listening(handler, async (listener) => {
    const client = await Client.connect(listener);
    await client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000));
    await client.until(({ closed }) => closed);
    await until(() => listener.running === 0);
    assertEquals([asked, left], [1, 1]);
    assertEquals(await (await fetch(`http://127.0.0.1:${listener.port}/`)).text(), "a");
    held.resolve(new Response("b"));
    await client.end();
  });
});

Deno.test("listen: at the limit, the longest-idle connection is closed, and no busy one", () => {
  const held = Promise.withResolvers<Response>();
  return listening(({ url }) => url.endsWith("/held") ? held.promise : new Response("a"), async (listener) => {
    const all = await clients(4, listener), [busy, used, idle] = all;
    await busy.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    for (const client of all.slice(1)) {
      await client.send(GET);
      await client.until(({ text }) => text.endsWith("0\r\n\r\n") || text.endsWith("a"));
    }
    used.text = "";
    await used.send(GET);
    await used.until(({ text }) => text.endsWith("0\r\n\r\n") || text.endsWith("a"));
    const [fifth] = await clients(1, listener);
    await idle.until(({ closed }) => closed);
    await fifth.send(GET);
    await fifth.until(({ status }) => status === "200");
    assertEquals([busy.closed, used.closed, listener.connections], [false, false, 4]);
    held.resolve(new Response("late"));
    await busy.until(({ text }) => text.includes("late"));
    await endAll([...all, fifth]);
  }, { connections: 4 });
});

Deno.test("listen: beside 2,000 idle connections, which stay open, others are answered", () =>
  withServer(async ({ port, url }) => {
    const all = (await Promise.all(Array.from({ length: 20 }, () => clients(100, { port })))).flat();
    await Promise.all(all.map((client, i) => i % 2 ? client.send("GET / HTTP/1.1\r\n") : undefined));
    for (let i = 0; i < 20; i++) assertEquals((await (await fetch(`${url}/health`)).json()).status, "ok");
    assertEquals(all.filter(({ closed }) => closed).length, 0);
    await endAll(all);
  }, { headerSeconds: 600 }));

Deno.test("listen: a disconnected client is noticed without another token, before and after the first token", () =>
  withServer(async ({ port, engine }) => {
    const body = (stream: boolean) => JSON.stringify({ model: "letters", prompt: "a", max_tokens: 60, stream });
    for (const stream of [true, false]) {
      for (const tokens of [0, 5]) {
        const { left } = engine, text = body(stream), client = await Client.connect({ port });
        const last = engine.holdAt = engine.tokens + tokens;
        await client.send(
          `POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
        );
        await until(() => engine.running === 1 && engine.tokens === last);
        await client.end();
        await until(() => engine.running === 0);
        assertEquals([engine.left, engine.tokens], [left + 1, last]);
      }
    }
  }));

Deno.test("listen: a client that does not read blocks only itself, and is disconnected", () =>
  listening(() => {
    const piece = new Uint8Array(65536);
    return new Response(new ReadableStream({ pull: (controller) => controller.enqueue(piece) }, { highWaterMark: 0 }));
  }, async (listener) => {
    const socket = await Deno.connect({ port: listener.port });
    await socket.write(new TextEncoder().encode(GET));
    await until(() => listener.running === 1);
    await until(() => listener.running === 0 && listener.connections === 0);
    socket.close();
  }, { stallSeconds: 0.5 }));

Deno.test("listen: an answer to HEAD leaves nothing open", async () => {
  const ended = Promise.withResolvers<void>();
  await listening(() => new Response(new ReadableStream({ cancel: () => ended.resolve() })), async ({ port }) => {
    assertEquals((await fetch(`http://127.0.0.1:${port}`, { method: "HEAD" })).status, 200);
    await ended.promise;
  });
});

Deno.test("drain: running answers are completed, and then all connections are closed", () =>
  withServerEngine(async (engine, listener) => {
    engine.delay = 10;
    const url = `http://127.0.0.1:${listener.port}/v1/completions`, headers = { "content-type": "application/json" };
    const ask = { model: "letters", prompt: "a", max_tokens: 30, stream: true };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(ask) });
    const idle = await Client.connect(listener), drained = listener.drain(3_600_000);
    assert((await response.text()).endsWith("data: [DONE]\n\n"));
    await idle.until(({ closed }) => closed); // long before the hour has passed
    await drained;
    await idle.end();
    assertEquals(listener.connections, 0);
    await assertRejects(() => fetch(url));
  }));

Deno.test("drain: answers that take too long are cut off", () =>
  withServerEngine(async (engine, listener) => {
    engine.delay = 200;
    const url = `http://127.0.0.1:${listener.port}/v1/completions`, headers = { "content-type": "application/json" };
    const ask = { model: "letters", prompt: "a", max_tokens: 60, stream: true };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(ask) });
    await listener.drain(300);
    await assertRejects(() => response.text());
    await until(() => engine.running === 0);
  }));

Deno.test("listen: a port that is taken is an error with the system's code", () =>
  listening(() => new Response(), async ({ port }) => {
    const error = await assertRejects(() => listen(() => new Response(), { port }));
    assertEquals((error as { code?: string }).code, "EADDRINUSE");
  }));

Deno.test("listen: a connection's requests begin one after the other, and other connections get turns in between", () => {
  const first = Promise.withResolvers<Response>(), paths: string[] = [];
  let other: Client | undefined;
  const handler: Handler = ({ url }) => {
    paths.push(new URL(url).pathname);
    if (paths.length === 1) return first.promise;
    if (paths.length === 2) void other!.send("GET /other HTTP/1.1\r\nhost: a\r\n\r\n");
    return new Response("a");
  };
  return listening(handler, async (listener) => {
    const [many] = await clients(1, listener);
    other = await Client.connect(listener);
    await many.send(GET.repeat(16));
    await many.until(() => paths.length > 0);
    await wait(20);
    assertEquals(paths.length, 1); // the 15 other requests wait for the first answer
    first.resolve(new Response("a"));
    await many.until(({ text }) => text.split("200 OK").length === 17);
    await other.until(({ status }) => status === "200");
    assert(paths.indexOf("/other") < 16, `${paths}`);
    await endAll([many, other]);
  });
});

async function withServerEngine(body: (engine: FakeEngine, listener: Listener) => Promise<void>): Promise<void> {
  const { Access } = await import("../../src/server/auth.ts"),
    { serveRoutes } = await import("../../src/server/server.ts");
  const engine = new FakeEngine();
  await using listener = await serveRoutes({ engine, access: new Access({ hostname: "127.0.0.1" }) }, { port: 0 });
  await body(engine, listener);
}
