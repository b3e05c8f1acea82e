/**
 * Damaged GGUF files: each is refused with our error, or loaded as PyPI's gguf reads it, whose verdicts are recorded. GGUF has no
 * checksum: a name, a number or a letter that has become another one is believed.
 *
 * `deno task test:long` judges 20,000, and with `-- --record` writes the verdicts.
 */
import { assert, assertEquals } from "@std/assert";
import { judge, type Judged } from "./gguf_judge.ts";

const verdicts: (string | null)[] = JSON.parse(
  await Deno.readTextFile(new URL("../golden/gguf/verdicts.json", import.meta.url)),
);

Deno.test(`${verdicts.length} mutants of GGUF files are refused, or loaded as PyPI's gguf reads them`, async () => {
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
