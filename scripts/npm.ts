/** The npm packages that only tests, benchmarks and scripts use, in the versions that deno.json names. */
import config from "../deno.json" with { type: "json" };

/** One of them. */
export type DevelopmentPackage = keyof typeof config.npm.development;

/** As npm takes it: `name@version`. */
export const npm = (name: DevelopmentPackage): string => `${name}@${config.npm.development[name]}`;

/** Imports it. The specifier is computed, so that it is fetched only when it is reached. */
// deno-lint-ignore no-explicit-any -- modules whose types `deno check` would have to fetch
export function importNpm(name: DevelopmentPackage): Promise<any> {
  const specifier = `npm:${npm(name)}`;
  return import(specifier);
}
