/** Imports the npm packages that only tests, benchmarks and scripts use, in the versions that deno.json names. */
import config from "../deno.json" with { type: "json" };

/** Name of a package in deno.json's list of development packages. */
export type DevelopmentPackage = keyof typeof config.npm.development;

/** Returns a package's name and version in npm's format, `name@version`. */
export const npm = (name: DevelopmentPackage): string => `${name}@${config.npm.development[name]}`;

/** Imports a package. The specifier is computed, so that Deno fetches the package only when this function is called. */
// deno-lint-ignore no-explicit-any -- `deno check` would have to fetch the packages for their types
export function importNpm(name: DevelopmentPackage): Promise<any> {
  const specifier = `npm:${npm(name)}`;
  return import(specifier);
}
