/** Uploads: forms that arrive in pieces, refused uploads, and the files on the disk. */
import { assertEquals } from "@std/assert";
import { type Answer, withJobs } from "./jobs_client.ts";
import { inFolder } from "../testing.ts";

/** Makes the body of a multipart form. */
const form = (...parts: [head: string, body: string][]) => ({
  headers: { "content-type": "multipart/form-data; boundary=xYz" },
  body: parts.map(([head, body]) => `--xYz\r\nContent-Disposition: form-data; ${head}\r\n\r\n${body}\r\n`).join("") +
    "--xYz--\r\n",
});
const purpose: [string, string] = ['name="purpose"', "fine-tune"];
const fileOf = (
  text: string,
  name = "a.jsonl",
): [string, string] => [`name="file"; filename="${name}"\r\nContent-Type: application/octet-stream`, text];

Deno.test("files: parts may come in any order and in any pieces, contents are returned unchanged, names are labels", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ fetch, get }) => {
      const text = "--xYz\r\n\r\n--xY\r\n--x\u00e9\r\n-";
      for (const parts of [[purpose, fileOf(text)], [fileOf(text, "../../etc/passwd"), purpose]]) {
        const { headers, body } = form(...parts), bytes = new TextEncoder().encode(body.replaceAll("xYz", "xYzxYz"));
        for (const size of [1, 7, bytes.length]) {
          const pieces = new ReadableStream<Uint8Array>({
            start(controller) {
              for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
              controller.close();
            },
          });
          const type = headers["content-type"].replace("xYz", "xYzxYz").replace("=", size === 7 ? '="' : "=") +
            (size === 7 ? '"' : "");
          const response = await fetch("POST", "/v1/files", { headers: { "content-type": type }, body: pieces });
          const { id, bytes: length, filename } = await response.json();
          assertEquals(filename, parts === undefined || parts[0] === purpose ? "a.jsonl" : "../../etc/passwd");
          const back = await (await fetch("GET", `/v1/files/${id}/content`)).text();
          assertEquals([back, length], [text.replaceAll("xYz", "xYzxYz"), new TextEncoder().encode(back).length]);
        }
      }
      const all = await get("/v1/files?limit=4"), rest = await get(`/v1/files?limit=4&after=${all.last_id}`);
      assertEquals([all.data.length, all.has_more, rest.data.length, rest.has_more], [4, true, 2, false]);
      const up = await get("/v1/files?order=asc&purpose=fine-tune");
      assertEquals(
        up.data.map(({ id }: Answer) => id).reverse(),
        [...all.data, ...rest.data].map(({ id }: Answer) => id),
      );
      assertEquals((await get("/v1/files?purpose=evals")).data, []);
      assertEquals(
        [...Deno.readDirSync(`${folder}/jobs/files`)].every(({ name }) => /^file-[0-9a-f]+\.(jsonl|txt)$/.test(name)),
        true,
      );
      const [{ id }] = all.data;
      assertEquals(await (await fetch("DELETE", `/v1/files/${id}`)).json(), { id, object: "file", deleted: true });
      assertEquals((await fetch("GET", `/v1/files/${id}`)).status, 404);
      assertEquals([...Deno.readDirSync(`${folder}/jobs/files`)].length, 5);
    })
  ));

Deno.test("files: uploads in progress count towards a key's storage", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ fetch, upload, jobs: { store } }) => {
      const stored = store.file(await upload("a"))!;
      store.addFile({ ...stored, id: "file-large", bytes: 2 * 2 ** 30 - 500 });
      const { headers, body } = form(purpose, fileOf("b".repeat(400)));
      const bytes = new TextEncoder().encode(body), waiting = Promise.withResolvers<void>();
      const rest = Promise.withResolvers<void>(), parts = [bytes.subarray(0, -60), bytes.subarray(-60, -50)];
      const slow = new ReadableStream<Uint8Array>({
        async pull(controller) {
          const part = parts.shift();
          if (part) return controller.enqueue(part);
          waiting.resolve(); // the server has counted both parts, and asks for more
          await rest.promise;
          controller.enqueue(bytes.subarray(-50));
          controller.close();
        },
      }, { highWaterMark: 0 });
      const first = fetch("POST", "/v1/files", { headers, body: slow });
      await waiting.promise;
      const { error } = await (await fetch("POST", "/v1/files", { headers, body })).json();
      assertEquals([error.code, error.param], ["storage_limit_exceeded", "file"]);
      assertEquals((await fetch("POST", "/v1/files", { headers, body }, "two")).status, 200);
      rest.resolve();
      assertEquals((await first).status, 200);
      assertEquals((await fetch("POST", "/v1/files", { headers, body })).status, 413);
    })
  ));

Deno.test("files: an invalid upload is refused and leaves no file", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ fetch, get }) => {
      const expiry = (seconds: string, anchor = "created_at"): [string, string][] => [
        ['name="expires_after[anchor]"', anchor],
        ['name="expires_after[seconds]"', seconds],
      ];
      const cut = { ...form(purpose, fileOf("abc")), body: form(purpose, fileOf("abc")).body.slice(0, -9) };
      const cases: [RequestInit, status: number, param: string | null][] = [
        [{ headers: { "content-type": "application/json" }, body: "{}" }, 415, null],
        [form(purpose), 400, "file"],
        [form(fileOf("abc")), 400, "purpose"],
        [form(purpose, fileOf("")), 400, "file"],
        [form(purpose, fileOf("a"), fileOf("b")), 400, "file"],
        [form(['name="purpose"', "vision"], fileOf("abc")), 400, "purpose"],
        [form(purpose, ['name="path"', "/etc"], fileOf("abc")), 400, "path"],
        [form(purpose, ['name="purpose"', "x".repeat(2000)], fileOf("abc")), 400, "purpose"],
        [form(purpose, fileOf("abc"), ...expiry("60")), 400, "expires_after.seconds"],
        [form(purpose, fileOf("abc"), ...expiry("7200", "now")), 400, "expires_after.anchor"],
        [form(...Array.from({ length: 20 }, () => purpose)), 400, null],
        [form(["filename=x", "abc"]), 400, null],
        [cut, 400, null],
        [{ ...form(), body: "not a form" }, 400, null],
        [{ ...form(), body: "" }, 400, null],
        [{ ...form(), body: `--xYz\r\n${"x".repeat(9000)}` }, 400, null],
      ];
      for (const [init, status, param] of cases) {
        const response = await fetch("POST", "/v1/files", init), { error } = await response.json();
        assertEquals([response.status, error.param], [status, param], JSON.stringify([init, error]).slice(0, 300));
      }
      const large = { ...form(purpose, fileOf("abc")) };
      Object.assign(large.headers, { "content-length": `${600 * 2 ** 20}` });
      assertEquals((await fetch("POST", "/v1/files", large)).status, 413);
      assertEquals([(await get("/v1/files")).data, [...Deno.readDirSync(`${folder}/jobs/files`)]], [[], []]);
      assertEquals((await fetch("POST", "/v1/files", form(purpose, fileOf("abc"), ...expiry("7200")))).status, 200);
      const [{ expires_at, created_at }] = (await get("/v1/files")).data;
      assertEquals(expires_at - created_at, 7200);
    })
  ));
