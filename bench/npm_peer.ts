/**
 * npm packages to compare with. They are installed in a folder of the cache and are not dependencies of this
 * repository.
 */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { defaultCacheFolder } from "../src/files/cache_folder.ts";

/**
 * Installs packages once, without running their scripts.
 *
 * @param packages names with versions, such as `@jax-js/jax@0.1.25`
 * @returns the folder in which the packages are installed
 * @throws if npm is not installed, or fails
 */
export async function installed(packages: readonly string[]): Promise<string> {
  const folder = `${defaultCacheFolder()}/peers/${packages[0].replaceAll(/[@/]+/g, "-").slice(1)}`;
  const complete = `${folder}/installed.txt`, wanted = packages.join(" ");
  if (await Deno.readTextFile(complete).catch(() => "") === wanted) return folder;
  await Deno.mkdir(folder, { recursive: true });
  const flags = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = Deno.build.os === "windows" ? "npm.cmd" : "npm";
  const { success, stderr } = await new Deno.Command(npm, {
    args: ["install", "--prefix", folder, ...flags, ...packages],
  })
    .output();
  if (!success) throw new Error(`npm install ${wanted}: ${new TextDecoder().decode(stderr).trim().split("\n")[0]}`);
  await Deno.writeTextFile(complete, wanted);
  return folder;
}

// deno-lint-ignore no-explicit-any -- the packages are not installed when types are checked
export type Library = any;

/** Loads an installed package. */
export async function load(folder: string, name: string): Promise<{ library: Library; version: string }> {
  const require = createRequire(pathToFileURL(`${folder}/package.json`));
  const { version } = JSON.parse(await Deno.readTextFile(`${folder}/node_modules/${name}/package.json`));
  return { library: require(name), version };
}
