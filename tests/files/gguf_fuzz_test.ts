/**
 * Damaged GGUF files: each is rejected with a CheckpointError, or loaded with the contents that the PyPI package gguf
 * reads. Results of that package are recorded. GGUF has no checksum, so a changed name, number or character is accepted.
 *
 * `deno task test:long` tests 20,000 files, and with `-- --record` writes the results.
 */
import { assert, assertEquals } from "@std/assert";
import { judge, type Judged } from "./gguf_judge.ts";

const verdicts: (string | null)[] = JSON.parse(
  await Deno.readTextFile(new URL("../golden/gguf/verdicts.json", import.meta.url)),
);

Deno.test(`${verdicts.length} mutants of GGUF files are rejected, or loaded as PyPI's gguf reads them`, async () => {
  const folder = await Deno.makeTempDir();
  let loaded = 0;
  try {
    for (const [number, verdict] of verdicts.entries()) {
      const judged: Judged | undefined = await judge(number, `${folder}/mutant.gguf`);
      if (!judged) continue;
      assertEquals(judged.checksum, verdict, `mutant ${number}`);
      loaded++;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  assert(loaded > 20 && loaded < verdicts.length, `${loaded} were loaded`);
});
