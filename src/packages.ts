/**
 * Optional npm packages: Deno downloads each when a program first imports it. Their versions are in deno.json under
 * `npm.packages`, a key that Deno ignores. They are not in `imports`, because Deno downloads everything in `imports` or a
 * lock file before it runs any task.
 */
import config from "../deno.json" with { type: "json" };

/** Versions of the packages. Outside Deno they are optional peer dependencies of this package. */
export const PACKAGES = config.npm.packages;

export type PackageName = keyof typeof PACKAGES;

/** The specifier to import a package with: `npm:NAME@VERSION` in Deno, otherwise its bare name. */
export function specifierOf(name: PackageName): string {
  return "Deno" in globalThis ? `npm:${name}@${PACKAGES[name]}` : name;
}

/**
 * Imports a package, or the module at `path` in it. The specifier is computed at run time: Deno would download a
 * literal one at start.
 *
 * @throws {Error} when the package cannot be loaded; the message is one line, and outside Deno it says how to install
 *   the package
 */
// deno-lint-ignore no-explicit-any -- modules without types
export async function importPackage(name: PackageName, path = ""): Promise<any> {
  const specifier = specifierOf(name) + path;
  try {
    return await import(/* webpackIgnore: true */ /* @vite-ignore */ specifier);
  } catch (error) {
    const [line] = (error as Error).message.split("\n");
    throw new Error("Deno" in globalThis ? line : `${line} (npm install ${name}@${PACKAGES[name]})`);
  }
}
