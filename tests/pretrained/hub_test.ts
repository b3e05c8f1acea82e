/**
 * Downloads from a local server in place of the hub: complete, interrupted, redirected, and with wrong lengths or
 * checksums.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { downloadModel, type HubProgress, isHubModel } from "../../src/pretrained/hub.ts";
import { CheckpointError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

const NAMES = ["config.json", "vocab.json", "merges.txt", "tokenizer.json", "model.safetensors"];
const WEIGHTS = "model.safetensors", SIZE = 300_000;
/** The hub's files: some text, and weights of random bytes. */
const contents = new Map(NAMES.map((name) => [name, new TextEncoder().encode(`{"name":"${name}"}`)]));
const random = new RandomGenerator(1);
contents.set(WEIGHTS, Uint8Array.from({ length: SIZE }, () => random.randint(256)));

async function hex(algorithm: string, ...parts: (string | Uint8Array<ArrayBuffer>)[]): Promise<string> {
  const bytes = await new Blob(parts).bytes();
  return new Uint8Array(await crypto.subtle.digest(algorithm, bytes)).toHex();
}
/** The SHA-1 that git computes for a file. */
const gitSha1 = (bytes: Uint8Array<ArrayBuffer>) => hex("SHA-1", `blob ${bytes.length}\0`, bytes);

/** Faults of the local server. */
interface Faults {
  /** For each answer with weights, in order: the number of bytes after which the connection breaks. */
  readonly breaks?: number[];
  /** Whether the server ignores range requests. */
  readonly noRanges?: boolean;
  /** Headers in answers to HEAD requests for the weights. */
  readonly headers?: Record<string, string>;
  /** The bytes that the server sends instead of the weights. */
  readonly weights?: Uint8Array<ArrayBuffer>;
  /** Replaces the answer to a request, unless it returns undefined. */
  readonly answer?: (request: Request) => Response | undefined;
}

interface Hub {
  readonly url: string;
  /** A line for each request: "METHOD name range". */
  readonly requests: string[];
}

/** A hub that redirects `gpt2` to another path, and sends weights from another server, like the real hub. */
async function withHub(faults: Faults, work: (hub: Hub, folder: string) => Promise<void>) {
  const requests: string[] = [], breaks = [...faults.breaks ?? []];
  const log = (request: Request) => {
    const name = new URL(request.url).pathname.split("/").at(-1)!, range = request.headers.get("range");
    requests.push([request.method, name, ...(range ? [range] : [])].join(" "));
    return name;
  };
  const options = {
    port: 0,
    hostname: "127.0.0.1",
    onListen: () => {},
    onError: () => new Response(null, { status: 500 }),
  };
  const folder = await Deno.makeTempDir(), sum = await hex("SHA-256", contents.get(WEIGHTS)!);
  /** Number of bytes of the weights that the client has written. */
  const stored = async () => (await Deno.stat(`${folder}/gpt2/${WEIGHTS}.${sum}.part`)).size;
  const storage = Deno.serve(options, (request) => {
    const name = log(request), bytes = faults.weights ?? contents.get(name)!;
    const from = faults.noRanges ? 0 : Number(/bytes=(\d+)-/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
    if (from > 0 && from >= bytes.length) return new Response(null, { status: 416 });
    const part = bytes.subarray(from), end = breaks.shift() ?? Infinity;
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(part.subarray(0, Math.min(end, part.length)));
        if (end >= part.length) return controller.close();
        while (await stored() < from + end) await new Promise((resolve) => setTimeout(resolve, 5));
        controller.error(new Error("broken"));
      },
    });
    const range = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
    const headers = { "content-length": `${part.length}`, ...(from > 0 && range) };
    return new Response(body, { status: from > 0 ? 206 : 200, headers });
  });
  const hub = Deno.serve(options, async (request) => {
    const answer = faults.answer?.(request);
    if (answer) return answer;
    const { pathname } = new URL(request.url);
    if (pathname.startsWith("/gpt2/")) {
      return new Response(null, { status: 307, headers: { location: `/openai-community${pathname}` } });
    }
    const name = log(request), bytes = contents.get(name);
    if (!bytes) return new Response(null, { status: 404 });
    if (name !== WEIGHTS) {
      const headers = { etag: `"${await gitSha1(bytes)}"`, "content-length": `${bytes.length}` };
      return new Response(request.method === "HEAD" ? null : bytes, { headers });
    }
    const location = `http://127.0.0.1:${storage.addr.port}/${name}`, sha256 = await hex("SHA-256", bytes);
    const linked = { "x-linked-etag": `"${sha256}"`, "x-linked-size": `${bytes.length}`, ...faults.headers };
    return new Response(null, { status: 302, headers: { location, etag: '"of-the-redirection"', ...linked } });
  });
  try {
    await work({ url: `http://127.0.0.1:${hub.addr.port}`, requests }, folder);
  } finally {
    await Promise.all([hub.shutdown(), storage.shutdown(), Deno.remove(folder, { recursive: true })]);
  }
}
const names = async (folder: string) => (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
const load = (hub: Hub, cacheFolder: string) => downloadModel("gpt2", { cacheFolder, baseUrl: hub.url });
async function assertWhole(folder: string) {
  assertEquals(await names(folder), [...NAMES].sort());
  for (const [name, bytes] of contents) assertEquals(await Deno.readFile(`${folder}/${name}`), bytes);
}

Deno.test("hub: a model is downloaded once, with progress", () =>
  withHub({}, async (hub, cacheFolder) => {
    const progress: HubProgress[] = [], onProgress = (step: HubProgress) => progress.push(step);
    const folder = await downloadModel("gpt2", { cacheFolder, baseUrl: hub.url, onProgress });
    assertEquals(folder, `${cacheFolder}/gpt2`);
    await assertWhole(folder);
    for (const name of NAMES) {
      const steps = progress.filter(({ file }) => file === name), { length } = contents.get(name)!;
      assertEquals([steps[0], steps.at(-1)], [0, length].map((bytes) => ({ file: name, bytes, total: length })));
      assert(steps.every(({ bytes }, i) => i === 0 || bytes >= steps[i - 1].bytes));
    }
    const { length } = hub.requests;
    assertEquals(await load(hub, cacheFolder), folder);
    assertEquals(hub.requests.length, length); // no request was sent
    await Deno.remove(`${folder}/merges.txt`);
    await load(hub, cacheFolder);
    assertEquals(hub.requests.slice(length), ["HEAD merges.txt", "GET merges.txt"]);
    await assertWhole(folder);
    assertEquals([isHubModel("gpt2-xl"), isHubModel("gpt3")], [true, false]);
  }));

Deno.test("hub: an interrupted download is resumed, in the same call and in the next", () =>
  withHub({ breaks: [100_000, 50_000, 0] }, async (hub, cacheFolder) => {
    const error = await assertRejects(() => load(hub, cacheFolder), CheckpointError); // the third attempt received nothing
    assertMatch(error.message, /^Cannot download model\.safetensors of gpt2: /);
    assertEquals(
      error.message.split("\n")[1],
      `You can put model.safetensors from ${hub.url}/gpt2 into ${cacheFolder}/gpt2 by hand`,
    );
    const sha256 = await hex("SHA-256", contents.get(WEIGHTS)!), left = `${WEIGHTS}.${sha256}.part`;
    assertEquals(await names(`${cacheFolder}/gpt2`), [...NAMES.filter((name) => name !== WEIGHTS), left].sort());
    assertEquals((await Deno.stat(`${cacheFolder}/gpt2/${left}`)).size, 150_000);
    await assertWhole(await load(hub, cacheFolder));
    const gets = hub.requests.filter((request) => request.startsWith("GET model"));
    const from = (at: number) => `GET ${WEIGHTS} bytes=${at}-`;
    assertEquals(gets.slice(1).filter((request) => request.includes("bytes")), [
      ...[from(100_000), from(100_000), from(150_000), from(150_000)], // each from the hub, and from the server with the weights
      ...[from(150_000), from(150_000)],
    ]);
  }));

Deno.test("hub: the download begins again if the server ignores ranges", () =>
  withHub({ breaks: [100_000], noRanges: true }, async (hub, cacheFolder) => {
    await assertWhole(await load(hub, cacheFolder));
  }));

Deno.test("hub: a file of another length is deleted", async (t) => {
  const longer = new Uint8Array(SIZE + 1), shorter = new Uint8Array(SIZE - 1);
  await t.step("too long", () =>
    withHub({ weights: longer }, async (hub, cacheFolder) => {
      const message = `${SIZE + 1} bytes were received; expected the ${SIZE} that the hub announced`;
      await assertRejects(() => load(hub, cacheFolder), CheckpointError, message);
      assert(!(await names(`${cacheFolder}/gpt2`)).includes(WEIGHTS));
    }));
  await t.step("too short", () =>
    withHub({ weights: shorter }, async (hub, cacheFolder) => {
      await assertRejects(() => load(hub, cacheFolder), CheckpointError, "the server answered 416");
      assert(!(await names(`${cacheFolder}/gpt2`)).includes(WEIGHTS));
    }));
});

Deno.test("hub: a file with another checksum is deleted, and the next call downloads it again", async (t) => {
  const wrong = contents.get(WEIGHTS)!.with(7, contents.get(WEIGHTS)![7] ^ 1);
  await t.step("weights", () =>
    withHub({ weights: wrong }, async (hub, cacheFolder) => {
      const sum = await hex("SHA-256", wrong);
      await assertRejects(
        () => load(hub, cacheFolder),
        CheckpointError,
        `the checksum of the downloaded file is ${sum}; expected `,
      );
      assertEquals((await names(`${cacheFolder}/gpt2`)).filter((name) => name.startsWith("model")), []);
    }));
  await t.step("a small file", () => {
    const answer = (request: Request) =>
      request.method === "GET" && request.url.endsWith("/vocab.json")
        ? new Response('{"name":"vocab.jsOn"}')
        : undefined;
    return withHub({ answer }, async (hub, cacheFolder) => {
      await assertRejects(
        () => load(hub, cacheFolder),
        CheckpointError,
        "Cannot download vocab.json of gpt2: the checksum of",
      );
      assertEquals(await names(`${cacheFolder}/gpt2`), ["config.json"]);
    });
  });
  await t.step(
    "an ETag that is not a checksum",
    () =>
      withHub({ weights: wrong, headers: { "x-linked-etag": 'W/"a-b"' } }, async (hub, cacheFolder) => {
        assertEquals(await Deno.readFile(`${await load(hub, cacheFolder)}/${WEIGHTS}`), wrong);
      }),
  );
});

Deno.test("hub: if it cannot be reached or has no such file, the message says which files to put into which folder", async () => {
  let url = "";
  await withHub({ answer: () => new Response(null, { status: 503 }) }, async (hub, cacheFolder) => {
    url = hub.url;
    await assertRejects(() => load(hub, cacheFolder), CheckpointError, "config.json of gpt2: the server answered 503");
    assertEquals(await names(`${cacheFolder}/gpt2`), []);
  });
  const cacheFolder = await Deno.makeTempDir();
  try {
    const error = await assertRejects(
      () => downloadModel("distilgpt2", { cacheFolder, baseUrl: url }),
      CheckpointError,
    );
    const [first, second] = error.message.split("\n");
    assertMatch(first, /^Cannot download config\.json of distilgpt2: .*refused/i); // the server is closed
    assertEquals(
      second,
      `You can put ${NAMES.join(", ")} from ${url}/distilgpt2 into ${cacheFolder}/distilgpt2 by hand`,
    );
    // Files that the user put there are used without a network.
    for (const [name, bytes] of contents) await Deno.writeFile(`${cacheFolder}/distilgpt2/${name}`, bytes);
    await assertWhole(await downloadModel("distilgpt2", { cacheFolder, baseUrl: url }));
  } finally {
    await Deno.remove(cacheFolder, { recursive: true });
  }
});

Deno.test("hub: endless redirects are an error", () => {
  const answer = (request: Request) => Response.redirect(request.url, 307);
  return withHub({ answer }, async (hub, cacheFolder) => {
    await assertRejects(() => load(hub, cacheFolder), CheckpointError, "redirects too often");
  });
});

Deno.test("hub: two concurrent calls share one download", () =>
  withHub({}, async (hub, cacheFolder) => {
    const [a, b] = await Promise.all([load(hub, cacheFolder), load(hub, cacheFolder)]);
    assertEquals(a, b);
    await assertWhole(a);
    assertEquals(hub.requests.filter((request) => request === `GET ${WEIGHTS}`).length, 2); // one for each server
  }));
