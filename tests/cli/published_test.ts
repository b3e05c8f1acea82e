/**
 * The published files: commands run in an empty folder from a server that serves them module by module, like a
 * registry. Also checks that nothing but our own files in data/ is published.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import lock from "../../npm.lock" with { type: "text" };
import { SHIPPED } from "../../src/cli/config_file.ts";

const root = new URL("../../", import.meta.url);
const TYPES: Record<string, string> = { ts: "application/typescript", json: "application/json" };

/** Whether `publish.include` covers a file. Other files are not served, even if a command needs them. */
function shipped(path: string): boolean {
  return config.publish.include.some((name) =>
    path.match(`^${name.replaceAll(".", "\\.").replace("*", "[^/]*")}($|/)`)
  );
}

async function respond(request: Request): Promise<Response> {
  const path = new URL(request.url).pathname.slice(1), type = TYPES[path.split(".").at(-1)!] ?? "text/plain";
  if (!shipped(path)) return new Response("", { status: 404 });
  return new Response(await Deno.readFile(new URL(path, root)), { headers: { "content-type": type } });
}

Deno.test("published: the commands run from a registry's modules, and find the published configs", async () => {
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, respond);
  const registry = `http://127.0.0.1:${server.addr.port}`, folder = await Deno.makeTempDir();
  const run = async (command: string, ...args: string[]) => {
    const all = ["run", "--quiet", "--no-check", "--no-config", "-A", `${registry}/src/cli/${command}.ts`, ...args];
    const output = await new Deno.Command(Deno.execPath(), {
      args: all,
      cwd: folder,
      clearEnv: true,
      env: { DENO_DIR: `${folder}/deno`, HOME: folder, NO_COLOR: "1" },
    }).output();
    const [out, error] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
    assert(output.success, `${command}: ${out}${error}`);
    return out;
  };
  try {
    await Deno.writeTextFile(`${folder}/text.txt`, "To be, or not to be, that is the question. ".repeat(20));
    const tiny = ["--n_layer=1", "--n_head=1", "--n_embd=16", "--block_size=8", "--batch_size=2", "--eval_iters=1"];
    const trained = await run(
      "train",
      "config/train_shakespeare_char.py",
      ...tiny,
      "--input=text.txt",
      "--max_iters=2",
      "--eval_interval=2",
      "--threads=1",
    );
    assertMatch(trained, /deno run --allow-\S+ .*jsr:@nanogpt\/ts\/cli\/sample --out_dir=out-shakespeare-char/);
    const written = await run("sample", "--out_dir=out-shakespeare-char", "--num_samples=1", "--max_new_tokens=5");
    assertMatch(written, /\S/);
    assertEquals(
      (await run("prepare", "--tokenizer=character", "--input=text.txt", "--out_dir=tokens")).includes("tokens"),
      true,
    );
    // serve imports all of the server, including the page's files.
    assertStringIncludes(await run("serve", "--help"), "jsr:@nanogpt/ts/cli/serve");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("published: commands find every config of the repository from any folder", async () => {
  const names = (await Array.fromAsync(Deno.readDir(new URL("config/", root)))).map(({ name }) => `config/${name}`);
  assertEquals([...SHIPPED.keys()].sort(), names.filter((name) => name !== "config/train_config.ts").sort());
});

Deno.test("published: the lock file has the packages that deno.json names, in the versions of deno.json", () => {
  const { packages, development } = config.npm, { specifiers, npm } = JSON.parse(lock);
  const imported = {
    ...packages,
    typedoc: development.typedoc,
    typescript: development.typescript,
    "playwright-core": development["playwright-core"],
  };
  // The lock file writes the version of TypeDoc's peer after TypeDoc's own.
  const locked = (name: string, version: string) =>
    name === "typedoc" ? `${version}_typescript@${imported.typescript}` : version;
  const versions = Object.entries(imported).map(([name, version]) => [`npm:${name}@${version}`, locked(name, version)]);
  assertEquals(specifiers, Object.fromEntries(versions));
  for (const [name, version] of Object.entries(imported)) {
    assertMatch(npm[`${name}@${locked(name, version)}`].integrity, /^sha512-/);
  }
});

Deno.test("published: a task that needs no package fetches none", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const output = await new Deno.Command(Deno.execPath(), {
      args: ["task", "--quiet", "tokenize", "--tokenizer=character", "--help"],
      cwd: root,
      env: { DENO_DIR: folder, NO_COLOR: "1" },
    }).output();
    assert(output.success, new TextDecoder().decode(output.stderr));
    const npm = `${folder}/npm`, registries = await Array.fromAsync(Deno.readDir(npm)).catch(() => []);
    assertEquals(registries.map(({ name }) => name), []);
    assertEquals(new TextDecoder().decode(output.stderr).includes("Download"), false);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("published: nothing that a user prepares in data/ is shipped", () => {
  for (const path of ["data/grammar/grammar.ts", "data/shakespeare_char/tiny_shakespeare.ts", "src/gpt.ts", "mod.ts"]) {
    assert(shipped(path), path);
  }
  for (const path of ["mine/train.bin", "shakespeare_char/train.bin", "grammar/meta.json", "shakespeare/val.bin"]) {
    assert(!shipped(`data/${path}`), path);
  }
  assert(!config.publish.include.some((name) => /^(data|\.|\*)/.test(name) && !name.endsWith("/*.ts")));
});
