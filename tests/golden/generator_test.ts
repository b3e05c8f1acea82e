/** The generator of the fixtures, if PyTorch is installed: which files it leaves unchanged, and which it rewrites. */
import { assertEquals } from "@std/assert";
import { devices, inFolder } from "../testing.ts";
import { copy, generate, hasTorch } from "./torch.ts";

/** When each file was last written. */
async function times(folder: string, path = ""): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for await (const { name, isDirectory } of Deno.readDir(`${folder}/${path}`)) {
    if (isDirectory) { for (const [key, time] of await times(folder, `${path}${name}/`)) found.set(key, time); }
    else found.set(path + name, (await Deno.stat(`${folder}/${path}${name}`)).mtime!.getTime());
  }
  return found;
}

/** This test does not depend on the mode that the tests run in, so it runs in one mode only. */
if ((await devices()).some(({ name }) => name === "cpu narrow")) {
  Deno.test({
    name:
      "generator: a new case changes its op's fixture alone, an op without cases loses its own, and a second run changes nothing",
    ignore: !await hasTorch(),
    fn: () =>
      inFolder(async (folder) => {
        const golden = `${folder}/tests/golden`, cases = `${golden}/tensor_op_cases.py`;
        await copy("tests/golden", folder, (path) => /\.(py|json|safetensors)$/.test(path));
        const text = await Deno.readTextFile(cases), first = "# Elementwise\n";
        const added = 'case("tanh", "first of all", torch.tanh, normal(5), kind="transcendental")\n';
        await Deno.writeTextFile(cases, text.replace(first, `${added}${first}`));
        await Deno.copyFile(`${golden}/fixtures/ops_tanh.safetensors`, `${golden}/fixtures/ops_gone.safetensors`);
        const before = await times(golden);
        await generate(folder);
        const after = await times(golden);
        const changed = [...new Set([...before.keys(), ...after.keys()])]
          .filter((path) => before.get(path) !== after.get(path));
        assertEquals(changed.sort(), [
          "fixtures/ops_gone.safetensors", // removed by the generator
          "fixtures/ops_tanh.safetensors",
          "manifest.json",
        ]);
        await generate(folder, "tanh");
        assertEquals(await times(golden), after);
      }),
  });
}
