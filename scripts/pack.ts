/**
 * `deno task pack [FILE.tgz]`: the package for Node and bundlers.
 *
 * `deno pack` makes the JavaScript. It leaves out the types of modules whose declarations it cannot see without inference, and
 * so TypeScript's own compiler makes all of them here. package.json gets the optional peers.
 */
import { PACKAGES } from "../src/packages.ts";
import { importNpm } from "./npm.ts";

interface Compiler {
  transpileModule(text: string, options: { compilerOptions: Record<string, unknown> }): { outputText: string };
  readonly ScriptTarget: { readonly ESNext: number };
  readonly ModuleKind: { readonly NodeNext: number };
  createProgram(files: readonly string[], options: Record<string, unknown>): {
    emit(file: undefined, write: (path: string, text: string) => void): unknown;
  };
}

const root = new URL("../", import.meta.url).pathname;

async function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd }).output();
  if (success) return;
  const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  throw new Error(`${command} ${args[0]} failed:\n${out}${error}`);
}

const importCompiler = async (): Promise<Compiler> => (await importNpm("typescript")).default;

/** The declarations of `entries` and all that they import, with the paths that they have in the package. */
async function declarations(entries: readonly string[]): Promise<Map<string, string>> {
  const typescript = await importCompiler();
  const program = typescript.createProgram(entries, {
    target: typescript.ScriptTarget.ESNext,
    module: typescript.ModuleKind.NodeNext,
    lib: ["lib.esnext.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
    types: [],
    strict: true,
    noCheck: true, // `deno check` checks
    declaration: true,
    emitDeclarationOnly: true,
    allowImportingTsExtensions: true,
    rootDir: root,
    outDir: root,
  });
  const files = new Map<string, string>();
  program.emit(undefined, (path, text) => {
    files.set(path.slice(root.length), text.replace(/((?:from|import) ?\(?")(\.[^"]+)\.ts"/g, '$1$2.js"'));
  });
  return files;
}

/** Of the paths of modules in a text, those that it imports, and those of its workers. */
const MODULES = /((?:from |import ?\(?|new URL\()")(\.[^"]+)\.ts"/g;

/**
 * Turns the modules that `deno pack` has left as they are into JavaScript: those of workers, which only a URL names, and the
 * page's, which are imported as texts. The page's modules keep the names of their imports: a server serves them under those.
 */
async function packRest(folder: string): Promise<void> {
  const typescript = await importCompiler(), { ESNext: target } = typescript.ScriptTarget;
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) await packRest(path);
    else if (name.endsWith(".ts") && !name.endsWith(".d.ts")) {
      const text = await Deno.readTextFile(path);
      const { outputText } = typescript.transpileModule(text, { compilerOptions: { target } });
      const page = folder.endsWith("/src/page");
      await Deno.writeTextFile(path.replace(/ts$/, "js"), page ? outputText : outputText.replace(MODULES, '$1$2.js"'));
      await Deno.remove(path);
    } else if (name.endsWith(".js")) {
      const text = await Deno.readTextFile(path), changed = text.replace(MODULES, '$1$2.js"');
      if (changed !== text) await Deno.writeTextFile(path, changed);
    }
  }
}

export async function pack(output: string): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(Deno.execPath(), ["pack", "--quiet", "--allow-dirty", "--output", `${folder}/deno.tgz`], root);
    await run("tar", ["xzf", "deno.tgz"], folder);
    const inside = `${folder}/package`,
      path = `${inside}/package.json`,
      manifest = JSON.parse(await Deno.readTextFile(path));
    const { exports } = JSON.parse(await Deno.readTextFile(`${root}/deno.json`));
    const types = await declarations(Object.values<string>(exports).map((entry) => root + entry.slice(2)));
    for (const [name, text] of types) await Deno.writeTextFile(`${inside}/${name}`, text);
    await packRest(inside);
    // The versions themselves in place of deno.json, which bundlers would take whole.
    const versions = `${inside}/src/packages.js`, code = await Deno.readTextFile(versions);
    await Deno.writeTextFile(
      versions,
      code.replace(/import config from [^;]+;/, `const config = ${JSON.stringify({ npm: { packages: PACKAGES } })};`),
    );
    const optional = Object.keys(PACKAGES).map((name) => [name, { optional: true }]);
    Object.assign(manifest, {
      description: "nanoGPT in TypeScript: train, fine-tune and sample GPTs on WebAssembly and WebGPU",
      engines: { node: ">=24" },
      sideEffects: ["./src/data/encode_worker.js", "./src/cli/*.js"],
      peerDependencies: PACKAGES,
      peerDependenciesMeta: Object.fromEntries(optional),
    });
    delete manifest.dependencies;
    await Deno.writeTextFile(path, JSON.stringify(manifest, null, 2) + "\n");
    await run("tar", ["czf", "npm.tgz", "package"], folder);
    await Deno.copyFile(`${folder}/npm.tgz`, output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) {
  const output = Deno.args[0] ?? "nanogpt-ts.tgz";
  await pack(output);
  console.log(`${output} is the package: npm install ./${output}`);
}
