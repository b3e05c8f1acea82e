/**
 * The package outside Deno: it is packed, installed in a Node.js project and in a project with three bundlers, and run
 * in Node.js and in Chromium. All results equal Deno's bit for bit.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { importNpm, npm } from "../../scripts/npm.ts";
import { pack } from "../../scripts/pack.ts";
import { PACKAGES } from "../../src/packages.ts";
import { everything } from "./files.js";
import { train } from "./losses.js";

/** Bundlers with their default settings; each writes its page into a folder with the bundler's name. */
const BUNDLERS = {
  vite: ["vite", "build", "--outDir=vite"],
  webpack: ["webpack", "--entry=./page.js", "--mode=production", "--output-path=webpack"],
  esbuild: ["esbuild", "page.js", "--bundle", "--outfile=esbuild/main.js"],
} as const;
const PAGE = '<!doctype html><script type="module" src="./main.js"></script>';
const CHROMIUM = "/usr/bin/chromium";
const SWIFT_SHADER = "/usr/lib/chromium/vk_swiftshader_icd.json"; // part of Chromium
const programs = ["dawn.js", "files.js", "lock.js", "losses.js", "node.js", "page.js", "rows.js"];

const root = await Deno.makeTempDir();
addEventListener("unload", () => Deno.removeSync(root, { recursive: true }));

async function run(command: string, args: readonly string[], cwd: string, env = {}): Promise<string> {
  const output = await new Deno.Command(command, { args: [...args], cwd, env: { NO_COLOR: "1", ...env } }).output();
  const [out, error] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!output.success) throw new Error(`${[command, ...args].join(" ")}:\n${out}${error}`);
  return out;
}

/** Makes a project and installs the package in it. @returns the project's folder */
async function project(name: string, packages: readonly string[]): Promise<string> {
  const folder = `${root}/${name}`;
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify({ type: "module", private: true }));
  for (const program of programs) await Deno.copyFile(new URL(program, import.meta.url), `${folder}/${program}`);
  await run("npm", ["install", "--no-audit", "--no-fund", `${root}/package.tgz`, ...packages], folder);
  return folder;
}

/**
 * Packs the package and installs it in both projects. If that fails, the tests are skipped, or fail with
 * REQUIRE_WEBGPU=1.
 */
async function prepared(): Promise<{ node: string; web: string } | { missing: string }> {
  await pack(`${root}/package.tgz`);
  try {
    const [node, web] = await Promise.all([
      project("node", [npm("node"), npm("typescript")]),
      project("web", [npm("vite"), npm("webpack"), npm("webpack-cli"), npm("esbuild")]),
    ]);
    await Deno.stat(CHROMIUM);
    return { node, web };
  } catch (error) {
    if (Deno.env.get("REQUIRE_WEBGPU") === "1") throw error;
    return { missing: (error as Error).message };
  }
}

const projects = await prepared();
const options = { ignore: "missing" in projects, sanitizeOps: false, sanitizeResources: false };
if ("missing" in projects) console.log(`everywhere: skipped, because ${projects.missing}`);
const { node, web } = projects as { node: string; web: string };
const nodeProgram = `${node}/node_modules/node/bin/node`;
const runNode = async (folder: string) => JSON.parse(await run(nodeProgram, ["node.js", folder], node));
const install = (name: keyof typeof PACKAGES) =>
  run("npm", ["install", "--no-audit", "--no-fund", `${name}@${PACKAGES[name]}`], node);

Deno.test("everywhere: Node 24 trains, saves, loads and generates as Deno does, bit for bit", options, async () => {
  const missing = await runNode(`${root}/without`);
  assertMatch(missing.gpt2, new RegExp(`gpt-tokenizer.*npm install gpt-tokenizer@${PACKAGES["gpt-tokenizer"]}`));
  await install("gpt-tokenizer");
  const there = await runNode(`${root}/there`), here = await everything(await train(20, 2), `${root}/here`);
  assertEquals(there, JSON.parse(JSON.stringify(here)));
  assertEquals(there.losses.length, 20);
  assertEquals(there.gpt2, [15496, 11, 995]);
  const { trained, ...loaded } = there.sums;
  assertEquals(loaded, { huggingFace: trained, nanoGPT: trained, run: trained });
  assertMatch(there.missing, /no such file or folder|no such folder|no config\.json/);
});

Deno.test(
  "everywhere: Node reads Parquet and renders templates in workers, with the project's packages",
  options,
  async () => {
    const file = new URL("../golden/parquet/zstd.parquet", import.meta.url).pathname, path = `${root}/rows.parquet`;
    await Deno.copyFile(file, path);
    const rows = async () => JSON.parse(await run(nodeProgram, ["rows.js", path], node));
    assertMatch(
      (await rows()).error,
      new RegExp(`Cannot load the package hyparquet: .*npm install hyparquet@${PACKAGES.hyparquet}`),
    );
    await Promise.all([await install("hyparquet"), await install("@huggingface/jinja")]);
    const expected = Array.from({ length: 40 }, (_, i) => ({ kind: "label", text: `row ${i}`, label: i % 3 }));
    assertEquals(await rows(), { rows: expected, text: "user: hi" });
  },
);

Deno.test("everywhere: in Node a killed writer's folder is free after 30 s", options, async () => {
  const folder = `${root}/locked`,
    file = `${folder}/.lock`,
    again = () => run(nodeProgram, ["lock.js", folder, "once"], node);
  const age = (seconds: number) => Deno.utime(file, new Date(), new Date(Date.now() - 1000 * seconds));
  const begin = async () => {
    const child = new Deno.Command(nodeProgram, { args: ["lock.js", folder], cwd: node, stdout: "piped" }).spawn();
    const reader = child.stdout.getReader(), first = new TextDecoder().decode((await reader.read()).value);
    const kill = async () => {
      child.kill("SIGKILL");
      await Promise.all([child.status, reader.cancel()]);
    };
    return { first, kill, inUse: new RegExp(`in use by process ${child.pid} since \\d{4}-`) };
  };
  const holder = await begin();
  try {
    assertEquals(holder.first, "held\n");
    assertMatch(await again(), holder.inUse);
    await age(3600);
    for (let i = 0; i < 1200 && Date.now() - Number((await Deno.stat(file)).mtime) > 10_000; i++) {
      await new Promise((resolve) => setTimeout(resolve, 50)); // until the lock file is touched
    }
    assertMatch(await again(), holder.inUse);
  } finally {
    await holder.kill();
  }
  await age(15);
  assertMatch(await again(), holder.inUse);
  await age(35);
  const next = await begin();
  await next.kill();
  assertEquals(next.first, "held\n");
});

Deno.test("everywhere: Node computes on the GPU through Dawn", options, async () => {
  const env = { VK_ICD_FILENAMES: SWIFT_SHADER, XDG_RUNTIME_DIR: root },
    dawn = () => run(nodeProgram, ["dawn.js"], node, env);
  assertMatch(await dawn(), new RegExp(`webgpu:dawn: .*npm install webgpu@${PACKAGES.webgpu}`));
  await install("webgpu");
  assertEquals(JSON.parse(await dawn()), [7, 10, 15, 22]);
});

Deno.test("everywhere: in Node a command prints one line that it needs Deno", options, async () => {
  const here = new URL("../../", import.meta.url).pathname,
    { tasks } = JSON.parse(await Deno.readTextFile(`${here}deno.json`));
  const commands = Object.values<{ command: string }>(tasks).map(({ command }) => command).join().matchAll(
    /src\/cli\/(?!v8_)\w+/g,
  );
  const entries = [...new Set(Array.from(commands, ([entry]) => entry))];
  assertEquals(entries.length >= 6, true);
  const inPackage = `${node}/node_modules/@nanogpt/ts/`;
  for (const path of entries.flatMap((entry) => [`${here}${entry}.ts`, `${inPackage}${entry}.js`])) {
    const { code, stdout, stderr } = await new Deno.Command(nodeProgram, { args: [path, "--help"] }).output();
    const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals({ code, out }, { code: 1, out: "" }, path);
    assertMatch(error, /^error: the commands need Deno[^\n]*\n$/, path);
  }
  // In Deno the package's commands run, with the shipped configs.
  const tiny = ["--n_layer=1", "--n_head=1", "--n_embd=16", "--block_size=8", "--max_iters=1", "--eval_iters=1"];
  const words = ["config/shakespeare_char_cpu", "--dataset=grammar", "--out_dir=packed", "--threads=1", ...tiny];
  assertMatch(await run(Deno.execPath(), ["run", "-A", `${inPackage}src/cli/train.js`, ...words], root), /Done: /);
});

Deno.test("everywhere: no module of the package imports from node: or from another package", options, async () => {
  const { files } =
    JSON.parse(await run("npm", ["pack", "--dry-run", "--json"], `${node}/node_modules/@nanogpt/ts`))[0];
  const modules = files.filter(({ path }: { path: string }) => path.endsWith(".js"));
  for (const { path } of modules) {
    const text = await Deno.readTextFile(`${node}/node_modules/@nanogpt/ts/${path}`);
    const imports = text.matchAll(/^(?:import|export)[^;"]*? from "([^"]+)"|\bimport\("([^"]+)"\)/gm);
    for (const [, from, dynamic] of imports) assertMatch(from ?? dynamic, /^\.{1,2}\//, path);
  }
  assertEquals(modules.length > 100, true);
});

Deno.test("everywhere: TypeScript finds the types of every entry point", options, async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(`${node}/node_modules/@nanogpt/ts/package.json`));
  const lines = Object.keys(exports).map((name, i) => `import * as m${i} from "@nanogpt/ts${name.slice(1)}";`);
  const uses =
    'import { createDevice, GPT } from "@nanogpt/ts";\nconst device = await createDevice("cpu", { threads: 1 });\n' +
    "export const size: number = new GPT({ nLayer: 1 }, { device }).config.nLayer;\n// @ts-expect-error\nnew GPT({ nLayer: true }, { device });\n";
  await Deno.writeTextFile(
    `${node}/types.mts`,
    `${lines.join("\n")}\nexport { ${lines.map((_, i) => `m${i}`)} };\n${uses}`,
  );
  const flags = [
    "--noEmit",
    "--strict",
    "--module",
    "nodenext",
    "--target",
    "esnext",
    "--lib",
    "esnext,dom,dom.asynciterable",
  ];
  await run(`${node}/node_modules/.bin/tsc`, [...flags, "types.mts"], node);
});

Deno.test("everywhere: pages built by Vite, webpack and esbuild have Deno's losses bit for bit", options, async () => {
  const { losses, device } = await train(10, 2);
  device.close();
  await Deno.writeTextFile(`${web}/index.html`, PAGE.replace("main.js", "page.js"));
  const { chromium } = await importNpm("playwright-core");
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  const listening = Promise.withResolvers<number>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: ({ port }) => listening.resolve(port) }, serve);
  try {
    for (const [bundler, args] of Object.entries(BUNDLERS)) {
      await run("npx", [...args], web);
      if (bundler !== "vite") await Deno.writeTextFile(`${web}/${bundler}/index.html`, PAGE);
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${await listening.promise}/${bundler}/index.html`);
      await page.waitForFunction("globalThis.losses", undefined, { timeout: 300_000 });
      assertEquals(await page.evaluate("globalThis.losses"), losses, bundler);
      await page.close();
    }
  } finally {
    await browser.close();
    await server.shutdown();
  }
});

/** Vite's page has absolute paths of its files. */
async function serve({ url }: Request): Promise<Response> {
  const { pathname } = new URL(url), type = pathname.endsWith(".js") ? "text/javascript" : "text/html";
  for (const path of [`${web}${pathname}`, `${web}/vite${pathname}`]) {
    const body = await Deno.readFile(path).catch(() => undefined);
    if (body) return new Response(body, { headers: { "content-type": type } });
  }
  return new Response(null, { status: 404 });
}
