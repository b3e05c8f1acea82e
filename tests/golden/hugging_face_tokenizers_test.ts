/**
 * Tokenizers of Hugging Face folders against transformers; hugging_face_tokenizers.py saved the folders and the ids.
 */
import { assertEquals } from "@std/assert";
import { loadTokenizer, tokenizerFromJSON } from "../../src/tokenizer/mod.ts";

interface Golden {
  readonly strings: readonly string[];
  readonly cases: readonly {
    readonly files: Readonly<Record<string, string>>;
    readonly vocab_size: number;
    readonly ids: readonly (readonly number[])[];
  }[];
}

const { strings, cases }: Golden = JSON.parse(
  await Deno.readTextFile(new URL("hugging_face_tokenizers.json", import.meta.url)),
);

for (const { files, vocab_size, ids } of cases) {
  Deno.test(`${Object.keys(files).join(" and ")}: ${ids.length} strings have transformers' ids`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
      const tokenizer = await loadTokenizer(folder);
      const again = await tokenizerFromJSON(JSON.parse(JSON.stringify(tokenizer)));
      assertEquals([tokenizer.vocabSize, again.vocabSize], [vocab_size, vocab_size]);
      ids.forEach((expected, i) => {
        const found = tokenizer.encode(strings[i], { allowedSpecial: "all" });
        assertEquals([...found], expected, JSON.stringify(strings[i]));
        assertEquals(again.encode(strings[i], { allowedSpecial: "all" }), found);
        assertEquals(tokenizer.decode(expected), strings[i]);
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
