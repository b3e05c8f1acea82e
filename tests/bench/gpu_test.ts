/** The GPU benchmark at tiny sizes, on the CPU or on the adapters that this process tests. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { benchGpu } from "../../bench/gpu.ts";

const names = Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["cpu"];

for (const name of names) {
  Deno.test(`bench:gpu measures products, training and decoding, and says that PyTorch is left out (${name})`, async () => {
    const lines: string[] = [], sizes = ["--small=True", "--rounds=2", "--seconds=0.01"];
    const flags = [`--device=${name}`, "--pytorch=none", "--full=True", "--input=LICENSE", ...sizes];
    assertEquals(await benchGpu(flags, (line) => lines.push(line), () => {}), 0);

    assertMatch(lines[0], new RegExp(`^\\d{4}-\\d\\d-\\d\\d, Deno ${Deno.version.deno}, ${name.split(":")[0]}`));
    assertEquals(lines[1], "PyTorch is left out: --pytorch=none");
    const rows = lines.slice(4, -1).map((line) => line.split("|").map((cell) => cell.trim()));
    const measured = ["matmul NN 64×64×64", "matmul NT 48×16×20", "matmul TN 16×48×20", "matmul NT 1×16×65"];
    const models = ["training, baby GPT", "training, nanoGPT's CPU setting", "decoding, baby GPT"];
    assertEquals(rows.map((cells) => cells[1]), [...measured, ...models]);
    for (const cells of rows) {
      const [best, median] = cells.slice(3, 5).map((cell) => Number(cell.replaceAll(",", "")));
      assert(median > 0 && best >= median, `${cells[1]}: best ${cells[3]}, median ${cells[4]}`);
      assertEquals(cells.slice(5, 10), ["—", "—", "—", "—", "—"]);
    }
    assertMatch(
      lines.at(-1)!,
      /^\nshakespeare_char on LICENSE: 20 iterations with 3 evaluations in [\d.]+ s, lowest validation loss \d\.\d{4}$/,
    );
  });
}
