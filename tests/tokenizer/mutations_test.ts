/**
 * Tokenizer files with a wrong byte, or a missing or repeated part: they are rejected, or give a tokenizer that works.
 */
import { assert, assertEquals } from "@std/assert";
import { CheckpointError, DataError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import golden from "../golden/hugging_face_tokenizers.json" with { type: "json" };

/** Number of mutants of each file. It has been run with 20000. */
const MUTANTS = 400;

const LONG_NUMBERS = [
  "9223372036854775808",
  "-1",
  "1e400",
  "0.5",
  "null",
  '"',
  "{",
  "[",
  "\\",
  "\\ud800",
  "Ġ",
  "  ",
  "\n",
];

function mutate(bytes: Uint8Array, generator: RandomGenerator): Uint8Array<ArrayBuffer> {
  const at = generator.randint(bytes.length), length = 1 + generator.randint(40), kind = generator.randint(6);
  const join = (...parts: ArrayLike<number>[]) => Uint8Array.from(parts.flatMap((part) => Array.from(part)));
  const before = bytes.subarray(0, at), after = bytes.subarray(at);
  if (kind === 0) return bytes.slice(0, at);
  if (kind === 1) return join(before, [bytes[at] ^ 1 << generator.randint(8)], bytes.subarray(at + 1));
  if (kind === 2) return join(before, bytes.subarray(at + length));
  if (kind === 3) return join(before, bytes.subarray(at, at + length), after);
  if (kind === 4) return join(before, [generator.randint(256)], bytes.subarray(at + 1));
  return join(before, new TextEncoder().encode(LONG_NUMBERS[generator.randint(LONG_NUMBERS.length)]), after);
}

for (const { files } of golden.cases) {
  const contents = Object.entries(files) as [string, string][];
  for (const [name, text] of contents.filter(([name]) => name !== "tokenizer_config.json")) {
    Deno.test(`${MUTANTS} mutants of ${name} are rejected, or encode and decode`, async () => {
      const folder = await Deno.makeTempDir(),
        generator = new RandomGenerator(1337),
        bytes = new TextEncoder().encode(text);
      try {
        for (const [name, text] of contents) await Deno.writeTextFile(`${folder}/${name}`, text);
        let refused = 0;
        for (let i = 0; i < MUTANTS; i++) {
          await Deno.writeFile(`${folder}/${name}`, mutate(bytes, generator));
          try {
            const tokenizer = await loadTokenizer(folder);
            for (const text of golden.strings.slice(0, 20)) {
              const ids = tokenizer.encode(text, { allowedSpecial: "all" });
              assert(ids.every((id) => id >= 0 && id < tokenizer.vocabSize));
              assertEquals(tokenizer.decode(ids), text);
            }
          } catch (error) {
            if (!(error instanceof CheckpointError || error instanceof DataError)) throw error;
            assert(!error.message.includes("undefined"), error.message);
            refused++;
          }
        }
        assert(refused > MUTANTS / 2, `${refused} refused`);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    });
  }
}
