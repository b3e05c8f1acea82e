/** Config files: TypeScript modules whose default export is an object with nanoGPT's names. */
import { pathToFileURL } from "node:url";
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";

/** The configs that come with the package. Their paths are literal, so a package that was not unpacked has them too. */
export const SHIPPED: ReadonlyMap<string, () => Promise<{ readonly default: object }>> = new Map([
  ["config/finetune_shakespeare.ts", () => import("../../config/finetune_shakespeare.ts")],
  ["config/shakespeare_char_3m.ts", () => import("../../config/shakespeare_char_3m.ts")],
  ["config/shakespeare_char_cpu.ts", () => import("../../config/shakespeare_char_cpu.ts")],
  ["config/train_shakespeare_char.ts", () => import("../../config/train_shakespeare_char.ts")],
]);

/**
 * Imports a config file. As nanoGPT's commands name `config/X.py`, that finds our `config/X.ts`; so does `config/X`.
 *
 * @throws {ConfigError} where the file is missing, does not compile or run, or does not export an object
 */
export async function loadConfig(word: string): Promise<object> {
  const path = word.replace(/(\.py|\.ts)?$/, ".ts");
  const url = pathToFileURL(path), shipped = SHIPPED.get(path);
  if (shipped && !await exists(path)) return (await shipped()).default; // wherever the command is called
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
    // The first line says what, and where it is a syntax error a later one says where, as "file:///…:line:column".
    const message = String(error instanceof Error ? error.message : error);
    const place = /:(\d+):\d+\s*$/m.exec(message.split("\n").slice(1).join("\n"))?.[1];
    throw new ConfigError(`${path} cannot be loaded: ${message.split("\n")[0]}${place ? ` (line ${place})` : ""}`);
  }
  if (typeof exported !== "object" || exported === null || Array.isArray(exported)) {
    throw new ConfigError(`${path} exports no object: write export default { batch_size: 12, … }`);
  }
  return exported;
}
