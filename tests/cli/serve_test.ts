/**
 * `serve` as a process: its answers equal the output of `sample`; how it stops; and errors before a model is loaded.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { ConfigError } from "../../src/errors.ts";
import { fallbacks } from "../../src/cli/flags.ts";
import { nameOf, serveFlags, type ServeValues, specsOf } from "../../src/cli/serve_flags.ts";
import { Lock } from "../../src/files/locks.ts";
import { inFolder, readUntil, runCommand } from "../testing.ts";

const root = new URL("../../", import.meta.url), decoder = new TextDecoder();
const env = { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" };

/** Starts the server with the permissions of its task, and waits until it has printed its address and an example. */
async function start(args: readonly string[]) {
  const allowed = [
    "--allow-read",
    "--allow-write",
    "--allow-net=127.0.0.1",
    "--allow-sys=systemMemoryInfo",
    "--allow-env=NANOGPT_DEBUG",
  ];
  const words = [
    "run",
    "--no-prompt",
    "--no-check",
    ...allowed,
    "src/cli/serve.ts",
    "--threads=1",
    "--port=0",
    ...args,
  ];
  const child = new Deno.Command(Deno.execPath(), { args: words, cwd: root, env, stdout: "piped", stderr: "piped" })
    .spawn();
  const shown = await readUntil(child, /-d '.*'\n/);
  const [, url] = /Ready at (http:\S+?)\/v1/.exec(shown) ?? [];
  return { child, shown, url };
}
async function ended(child: Deno.ChildProcess) {
  const [{ code }, out, err] = await Promise.all([
    child.status,
    Array.fromAsync(child.stdout, (chunk) => decoder.decode(chunk)).then((parts) => parts.join("")),
    new Response(child.stderr).text(),
  ]);
  return { code, out, err };
}

/** Runs `body` with a small run. */
function withRun(body: (run: string, folder: string) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, "the quick brown fox jumps over the lazy dog\n".repeat(70));
    const sizes = ["--n_layer=4", "--n_head=4", "--n_embd=128", "--block_size=256", "--batch_size=1", "--threads=1"];
    const brief = ["--eval_iters=1", "--max_iters=2", `--input=${folder}/text.txt`, `--out_dir=${folder}/run`];
    const { code, err } = await runCommand("train", ...sizes, ...brief);
    assertEquals(code, 0, err);
    await body(`${folder}/run`, folder);
  });
}

const post = (url: string, body: Record<string, unknown>) =>
  fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

Deno.test("serve: generates the text of sample, and after SIGTERM ends its streams and exits", () =>
  withRun(async (run, folder) => {
    const { child, shown, url } = await start([`--model=${run}`]);
    assertMatch(shown, /^run: loaded in [\d.]+ s; 64 texts at once, cpu \((wide|narrow)\), threads: 1\n/);
    const ask = { model: "run", prompt: "the ", max_tokens: 50, temperature: 0 };
    const { choices: [{ text }] } = await (await post(url, ask)).json();
    const options = [`--out_dir=${run}`, "--start=the ", "--max_new_tokens=50", "--temperature=0", "--num_samples=1"];
    const sampled = await runCommand("sample", ...options, "--threads=1");
    assertEquals(`the ${text}\n---------------\n`, sampled.out);

    const stream = await post(url, { ...ask, n: 16, temperature: 1, max_tokens: 250, stream: true });
    const reader = stream.body!.getReader(), first = decoder.decode((await reader.read()).value);
    assert(first.startsWith("data: {") && !first.includes("[DONE]"));
    child.kill("SIGTERM");
    let all = first;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      all += decoder.decode(value);
    }
    assert(all.endsWith("data: [DONE]\n\n"), all.slice(-200));
    const ends = all.matchAll(/"finish_reason":"length"/g).toArray().length;
    assertEquals(ends, 16);
    const { code, out, err } = await ended(child);
    assertEquals([code, err], [130, ""]);
    assertStringIncludes(out, "Stopping: waiting up to 30 seconds for running answers");
    const gone = await post(url, ask).then(() => "answered", () => "gone");
    assertEquals(gone, "gone");

    // With --public_host every request needs a key, and the printed example has one.
    const keys = `--keys=${folder}/keys.json`;
    await runCommand("serve", keys, "--new_key=Ada");
    const proxied = await start([`--model=${run}`, keys, "--public_host=gpt.example.org"]);
    assertMatch(proxied.shown, /, with a key from .*keys\.json\..* -H "Authorization: Bearer \$KEY" -d/s);
    proxied.child.kill("SIGTERM");
    await ended(proxied.child);
  }));

Deno.test("serve: keys are made, listed and revoked, and a port in use is an error before a model is loaded", () =>
  inFolder(async (folder) => {
    const keys = `--keys=${folder}/keys.json`, made = await runCommand("serve", keys, "--new_key=Ada");
    assertMatch(made.out, /^sk-nanogpt-\S{43}\n\nThis is the key key-\S+; it is not shown again/);
    const listed = await runCommand("serve", keys, "--list_keys"),
      [, id] = /^(\S+) {2}\S+ {2}Ada\n$/.exec(listed.out)!;
    await runCommand("serve", keys, `--revoke_key=${id}`);
    assertEquals((await runCommand("serve", keys, "--list_keys")).out, `${folder}/keys.json has no key\n`);
    const jobs = await runCommand("serve", `--jobs=${folder}/keys.json/jobs`, "--new_key=Ada");
    assertEquals(jobs.err, `error: Cannot write to ${folder}/keys.json/jobs: Not a directory\n`);
    const text = await Deno.readTextFile(`${folder}/keys.json`);
    assert(!text.includes(made.out.split("\n")[0]));

    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { child } = await start([`--model=${folder}/none`, `--port=${taken.addr.port}`]),
      { code, err } = await ended(child);
    assertEquals([code, err], [
      2,
      `error: --port=${taken.addr.port}: another program listens on this port; --port=0 takes a free port\n`,
    ]);
    const other = await start([`--model=${folder}/none`]), { code: status, err: said } = await ended(other.child);
    assertEquals([status, said.slice(0, 16)], [2, "error: No model "]);
    const lan = await ended((await start(["--host=0.0.0.0"])).child);
    assertEquals(lan.code, 2);
    assertStringIncludes(lan.err, "deno task serve:lan");
  }));

Deno.test("serve: after it listens, the process and its workers have only permission to read", () =>
  inFolder(async (folder) => {
    const names = ["read", "write", "net", "run", "ffi", "sys"];
    const states = `[${names.map((name) => `Deno.permissions.querySync({ name: "${name}" }).state`)}].join()`;
    await Deno.writeTextFile(`${folder}/worker.ts`, `onmessage = () => postMessage(${states});`);
    await Deno.writeTextFile(
      `${folder}/main.ts`,
      `import { revoke } from "${root}src/cli/serve_command.ts";
      const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
      const ask = () => new Promise((resolve) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.postMessage(0);
      });
      await ask();
      Deno.listen({ hostname: "127.0.0.1", port: 0 });
      revoke(["net", "write", "run", "ffi", "sys"]);
      console.log(${states} + " " + await ask());
      Deno.exit();`,
    );
    const allowed = ["--allow-read", "--allow-write", "--allow-net=127.0.0.1,huggingface.co,*.hf.co", "--allow-sys"];
    const args = ["run", "--config=deno.json", "--no-prompt", "--no-check", ...allowed, `${folder}/main.ts`];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: root, env, stdout: "piped" }).output();
    const left = "granted,prompt,prompt,prompt,prompt,prompt";
    assertEquals(decoder.decode(stdout), `${left} ${left}\n`);
  }));

Deno.test("serve: models and adapters are named by their paths or by name=NAME", () => {
  const specs = (more: Partial<ServeValues>) => specsOf({ ...fallbacks(serveFlags), ...more });
  const names = (more: Partial<ServeValues>) =>
    specs(more).map(({ id, path, ...rest }) => [id, path, "base" in rest ? rest.base : ""]);
  assertEquals(names({}), [["out", "out", ""]]);
  assertEquals(["a/b.gguf", "a/ckpt.pt", "gpt2", "a/b/", "ä ö/ü"].map(nameOf), ["b", "a", "gpt2", "b", "-"]);
  assertEquals(names({ model: ["a/x,1", "b,name=two"], adapter: ["l,base=two"] }), [
    ["x,1", "a/x,1", ""],
    ["two", "b", ""],
    ["l", "l", "two"],
  ]);
  const refused: [Partial<ServeValues>, string][] = [
    [{ model: ["a", "b/a"] }, "Two models are called a: rename one"],
    [{ model: ["a,nam=b"] }, "--model=a,nam=b: expected PATH[,name=NAME]"],
    [{ model: ["a,name=b c"] }, "names without spaces"],
    [{ model: ["a"], adapter: ["l,base=b"] }, "no model is called b; models: a"],
    [{ model: ["a", "b"], adapter: ["l"] }, "name the model that the adapter is for"],
  ];
  for (const [values, message] of refused) assertThrows(() => specs(values), ConfigError, message);
});

Deno.test("serve: a folder of jobs that another server uses is an error before a model is loaded", () =>
  inFolder(async (folder) => {
    using _ = await Lock.take(folder);
    const { code, err } = await ended((await start([`--model=${folder}/none`, `--jobs=${folder}`])).child);
    assertEquals(code, 1, err);
    assertMatch(err, new RegExp(`^error: ${folder} is in use by process ${Deno.pid} since `));
  }));
