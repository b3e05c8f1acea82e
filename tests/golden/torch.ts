/** Runs the generator of the golden fixtures, for tests, if PyTorch is installed. */
import { assert } from "@std/assert";

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function python(script: string, folder: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-c", `python3 ${script}`],
    cwd: folder,
    stdout: "piped",
    stderr: "piped",
  }).output();
  assert(success, `python3 ${script}: ${decode(stderr)}`);
  return decode(stdout);
}

/** Runs generate.py in a copy of the repository, for these ops or for all fixtures. */
export const generate = (folder: string, ...ops: string[]): Promise<string> =>
  python(`tests/golden/generate.py ${ops.join(" ")}`, folder);

/** Whether python3 has the PyTorch version that wrote the fixtures. Tests do not install it. */
export async function hasTorch(): Promise<boolean> {
  const manifest: Record<string, { torch: string }> = JSON.parse(
    await Deno.readTextFile(new URL("manifest.json", import.meta.url)),
  );
  const versions = new Set(Object.values(manifest).map(({ torch }) => torch));
  const installed = await python("-c 'import numpy, torch; print(torch.__version__)'", ".").catch(() => "");
  return versions.has(installed.trim());
}

/** Copies the files and folders of the repository for which the filter returns true. */
export async function copy(path: string, to: string, filter: (path: string) => boolean = () => true): Promise<void> {
  const from = new URL(`../../${path}`, import.meta.url);
  if (!(await Deno.stat(from)).isDirectory) {
    if (!filter(path)) return;
    await Deno.mkdir(`${to}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    return await Deno.copyFile(from, `${to}/${path}`);
  }
  for await (const { name } of Deno.readDir(from)) await copy(`${path}/${name}`, to, filter);
}
