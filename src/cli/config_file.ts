/** Config files: TypeScript modules whose default export is an object with the names of flags. */
import { pathToFileURL } from "node:url";
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";

/** The config files of the package. Each `import` has a literal path, so that they also load from a registry. */
export const SHIPPED: ReadonlyMap<string, () => Promise<{ readonly default: object }>> = new Map([
  ["config/finetune_shakespeare.ts", () => import("../../config/finetune_shakespeare.ts")],
  ["config/shakespeare_char_3m.ts", () => import("../../config/shakespeare_char_3m.ts")],
  ["config/shakespeare_char_cpu.ts", () => import("../../config/shakespeare_char_cpu.ts")],
  ["config/train_shakespeare_char.ts", () => import("../../config/train_shakespeare_char.ts")],
]);

/**
 * Imports a config file. `config/X.py`, the name in nanoGPT's commands, and `config/X` also find our `config/X.ts`.
 *
 * @throws {ConfigError} if the file is missing, does not compile or run, or does not export an object
 */
export async function loadConfig(word: string): Promise<object> {
  const path = word.replace(/(\.py|\.ts)?$/, ".ts");
  const url = pathToFileURL(path), shipped = SHIPPED.get(path);
  if (shipped && !await exists(path)) return (await shipped()).default; // found from any folder
  try {
    if (!(await Deno.stat(url)).isFile) throw new ConfigError(`${path} is not a file; a config is a TypeScript module`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    const hint = word.includes("=") ? "; flags begin with --" : "";
    throw new ConfigError(`${word || "''"}: no such config file${path === word ? "" : ` (looked for ${path})`}${hint}`);
  }
  let exported: unknown;
  try {
    exported = (await import(url.href)).default;
  } catch (error) {
    // The first line is the message. For a syntax error, a later line has the place, as "file:///…:line:column".
    const message = String(error instanceof Error ? error.message : error);
    const place = /:(\d+):\d+\s*$/m.exec(message.split("\n").slice(1).join("\n"))?.[1];
    throw new ConfigError(`${path} cannot be loaded: ${message.split("\n")[0]}${place ? ` (line ${place})` : ""}`);
  }
  if (typeof exported !== "object" || exported === null || Array.isArray(exported)) {
    throw new ConfigError(`${path} does not export an object: write export default { batch_size: 12, … }`);
  }
  return exported;
}
