/**
 * Makes the npm package for Node and bundlers: `deno task pack [FILE.tgz]`.
 *
 * `deno pack` makes the JavaScript. It makes no declarations (.d.ts) for modules whose exported types have to be
 * inferred, so TypeScript's own compiler makes the declarations of all modules here. The optional packages become
 * optional peer dependencies in package.json.
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

/** Returns the declarations of `entries` and of all modules that they import, by their paths in the package. */
async function declarations(entries: readonly string[]): Promise<Map<string, string>> {
  const typescript = await importCompiler();
  const program = typescript.createProgram(entries, {
    target: typescript.ScriptTarget.ESNext,
    module: typescript.ModuleKind.NodeNext,
    lib: ["lib.esnext.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
    types: [],
    strict: true,
    noCheck: true, // types are checked by `deno check`
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

/** Finds the paths of modules in a module's code: imported modules, and workers in `new URL("…")`. */
const MODULES = /((?:from |import ?\(?|new URL\()")(\.[^"]+)\.ts"/g;

/**
 * Compiles the modules that `deno pack` does not compile: modules of workers, because only a URL names them, and
 * modules of the page, because they are imported as texts. In the page's modules, imports still end in .ts, because the
 * server serves the modules under these names.
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
    // Inserts the versions. Otherwise the module would import deno.json, and bundlers would include all of it.
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
