/**
 * The npm packages that few programs need: each is fetched, in Deno, when a program first asks for it. Their versions stand in
 * deno.json, under a key of ours: Deno's tasks fetch all that `imports` or a lock file names, before they run.
 */
import config from "../deno.json" with { type: "json" };

/** Their versions. Outside Deno they are optional peers of this package. */
export const PACKAGES = config.npm.packages;

export type PackageName = keyof typeof PACKAGES;

/** What an `import` of a package is written with: its bare name outside Deno. */
export function specifierOf(name: PackageName): string {
  return "Deno" in globalThis ? `npm:${name}@${PACKAGES[name]}` : name;
}

/**
 * Imports a package, or a module at a path in it. The specifier is computed, for Deno fetches literal ones at start.
 *
 * @throws {Error} when the package cannot be had; the message is one line, and outside Deno says how to install the package
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
