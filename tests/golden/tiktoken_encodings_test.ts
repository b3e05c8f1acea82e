/** The encodings against tiktoken. tiktoken_encodings.py describes how the strings are made. */
import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../src/errors.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";

interface Golden {
  readonly strings: readonly string[];
  readonly encodings: Readonly<
    Record<string, {
      readonly vocab_size: number;
      /** Two lists for each string: its ids as ordinary text, and with special tokens allowed if it has some. */
      readonly ids: readonly (readonly [number[], number[]?])[];
      readonly decode: readonly (readonly [number[], string])[];
    }>
  >;
}

const { strings, encodings }: Golden = JSON.parse(
  await Deno.readTextFile(new URL("tiktoken_encodings.json", import.meta.url)),
);

for (const [name, { vocab_size, ids, decode }] of Object.entries(encodings)) {
  Deno.test(`${name}: ${strings.length} strings have tiktoken's ids`, async () => {
    const tokenizer = await loadTokenizer(name), ordinary = { disallowedSpecial: new Set<string>() };
    assertEquals(tokenizer.vocabSize, vocab_size);
    strings.forEach((text, i) => {
      const [plain, special] = ids[i], shown = JSON.stringify(text);
      assertEquals([...tokenizer.encode(text, ordinary)], plain, shown);
      assertEquals(tokenizer.decode(plain), text.toWellFormed(), shown);
      assertEquals([...tokenizer.encode(text, { allowedSpecial: "all" })], special ?? plain, shown);
      if (special) assertThrows(() => tokenizer.encode(text), DataError, "special token");
      else assertEquals([...tokenizer.encode(text)], plain, shown);
    });
  });

  Deno.test(`${name}: ids that are not valid text decode as in tiktoken, at once and one by one`, async () => {
    const tokenizer = await loadTokenizer(name);
    for (const [tokens, text] of decode) {
      assertEquals(tokenizer.decode(tokens), text, `${tokens}`);
      const decoder = tokenizer.decoder();
      assertEquals(tokens.map((id) => decoder.push(id)).join("") + decoder.end(), text, `${tokens}`);
    }
  });
}
