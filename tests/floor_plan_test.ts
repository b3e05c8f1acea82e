/**
 * The layers of the code (the floor plan in docs/architecture.md). A room, which is a folder or a top-level file,
 * imports only rooms on lower floors, so there are no circular imports, and code that a browser bundles makes no system
 * calls. Type imports do not count, because they do not exist at run time.
 */
import { assert, assertEquals } from "@std/assert";

/** The floors from the top down. Rooms on the same floor import nothing from each other. */
const FLOORS = [
  ["cli"],
  ["config", "server"],
  ["page"],
  ["search"],
  ["pretrained"],
  ["finetune"],
  ["train"],
  ["checkpoint"],
  ["evaluate"],
  ["generate"],
  ["data"],
  ["grammar", "shakespeare_char"],
  ["tokenizer"],
  ["files"],
  ["gpt.ts"],
  ["nn", "optim"],
  ["ops"],
  ["native"],
  ["device"],
  ["engine"],
  ["kernels"],
  ["kernel.ts"],
  ["wasm", "random", "loop", "half.ts"],
  ["errors.ts", "packages.ts"],
];

/** Rooms that a browser bundles. */
const BROWSER = ["wasm", "kernels", "engine", "device", "ops", "nn", "optim", "random", "gpt.ts", "generate", "page"];

/** Rooms that must not be reached, not even through imports of imports. */
const NEVERS: [rooms: readonly string[], never: readonly string[]][] = [
  [BROWSER, ["files", "checkpoint", "data", "cli"]],
  [["files"], ["gpt.ts", "nn", "device"]],
  [["checkpoint"], ["train", "finetune", "data"]],
  [["train"], ["finetune", "server", "pretrained"]],
  [["tokenizer"], ["checkpoint"]],
  [FLOORS.flat().filter((room) => room !== "cli"), ["cli", "server"]],
  [FLOORS.flat().filter((room) => room !== "cli" && room !== "native"), ["native"]],
];

/** The room of a path: a folder in src/ or at the top, the folder of a dataset, or a file directly in src/. */
function roomOf(path: string): string {
  const [top, room] = path.split("/");
  return top === "src" || top === "data" ? room : top;
}

/** Modules that a text imports at run time: paths relative to the repository; packages by their specifiers. */
function importsOf(path: string, text: string): string[] {
  const found: string[] = [];
  const code = text.replace(/\/\*[^]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  for (const [, type, names, from] of code.matchAll(/^(?:import|export)\s+(type\s)?([^;"]*?)\s*from\s*"([^"]+)"/gm)) {
    const listed = names.match(/^\{([^]*)\}$/)?.[1].split(",").map((name) => name.trim()).filter(Boolean);
    if (!type && !listed?.every((name) => name.startsWith("type "))) found.push(from);
  }
  for (const [, from] of code.matchAll(/\bimport\(\s*"([^"]+)"\s*\)|^import\s+"([^"]+)"/gm)) if (from) found.push(from);
  return found.map((from) => from.startsWith(".") ? new URL(from, `file:///${path}`).pathname.slice(1) : from);
}

async function* modules(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(`../${folder}`, import.meta.url))) {
    if (isDirectory) yield* modules(`${folder}/${name}`);
    else if (name.endsWith(".ts")) yield `${folder}/${name}`;
  }
}

const texts = new Map<string, string>(), imports = new Map<string, string[]>();
for (const folder of ["src", "kernels", "config", "data/grammar", "data/shakespeare_char"]) {
  for await (const path of modules(folder)) {
    const text = await Deno.readTextFile(new URL(`../${path}`, import.meta.url));
    texts.set(path, text);
    imports.set(path, importsOf(path, text));
  }
}
const own = (path: string) => imports.get(path)!.filter((to) => imports.has(to));

Deno.test("floor plan: importsOf finds every import in a text", () => {
  const text = 'import { type A, b } from "./b.ts";\nimport type { C } from "./c.ts";\nexport * from "../d.ts";\n' +
    'import { type E } from "./e.ts";\nimport x from "pkg";\nconst f = await import("./f.ts");\n// import("./g.ts")\n';
  assertEquals(importsOf("src/room/a.ts", text).sort(), ["pkg", "src/d.ts", "src/room/b.ts", "src/room/f.ts"]);
});

Deno.test("floor plan: every room is listed on a floor", () => {
  const rooms = new Set(Array.from(imports.keys(), roomOf)), known = new Set(FLOORS.flat());
  assertEquals([...rooms.difference(known)], []);
});

Deno.test("floor plan: a room imports only rooms on lower floors", () => {
  const floor = (path: string) => FLOORS.findIndex((rooms) => rooms.includes(roomOf(path)));
  const wrong = [...imports.keys()].flatMap((path) =>
    own(path).filter((to) => roomOf(to) !== roomOf(path) && floor(to) <= floor(path)).map((to) => `${path} -> ${to}`)
  );
  assertEquals(wrong, []);
});

Deno.test("floor plan: forbidden rooms are not reached through imports of imports", () => {
  const wrong: string[] = [];
  for (const start of imports.keys()) {
    const never = new Set(NEVERS.flatMap(([rooms, never]) => rooms.includes(roomOf(start)) ? never : []));
    const reached = new Set([start]);
    for (const path of reached) {
      for (const to of own(path)) {
        if (never.has(roomOf(to)) && roomOf(to) !== roomOf(start)) wrong.push(`${start} -> … ${path} -> ${to}`);
        reached.add(to);
      }
    }
  }
  assertEquals(wrong, []);
});

Deno.test("floor plan: there are no circular imports", () => {
  const done = new Set<string>(), circles: string[] = [];
  const visit = (path: string, way: readonly string[]): void => {
    if (way.includes(path)) return void circles.push([...way.slice(way.indexOf(path)), path].join(" -> "));
    if (done.has(path)) return;
    for (const to of own(path)) visit(to, [...way, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  assertEquals(circles, []);
});

Deno.test("floor plan: code for browsers uses neither Deno nor node: modules", () => {
  for (const [path, text] of texts) {
    if (!BROWSER.includes(roomOf(path))) continue;
    const code = text.replace(/\/\*[^]*?\*\//g, "").replace(/\/\/.*$/gm, "").replace(/"[^"\n]*"/g, '""');
    assert(!/\bDeno\./.test(code), `${path} uses Deno.*`);
    assertEquals(imports.get(path)!.filter((to) => to.startsWith("node:")), [], path);
  }
});

Deno.test("floor plan: only commands import node: modules", () => {
  const wrong = [...imports].filter(([path, to]) => roomOf(path) !== "cli" && to.some((name) => /^node:/.test(name)));
  assertEquals(wrong.map(([path]) => path), []);
});

Deno.test("floor plan: the page's list of files is complete", async () => {
  const { PAGE } = await import("../src/page/files.ts");
  const found = (await Array.fromAsync(Deno.readDir(new URL("../src/page/", import.meta.url)))).map(({ name }) => name);
  assertEquals(Object.keys(PAGE).sort(), found.filter((name) => name !== "files.ts").sort());
});
