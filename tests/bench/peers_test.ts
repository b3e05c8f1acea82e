/**
 * The comparison with other libraries on the CPU, at tiny sizes and with our sides alone: CI has no PyTorch, and tests
 * download nothing.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { benchPeers } from "../../bench/peers.ts";

Deno.test("bench:peers measures training, products and decoding, wide and narrow", async () => {
  const lines: string[] = [];
  const flags = ["--sides=ours", "--small=True", "--rounds=2", "--seconds=0.01"];
  assertEquals(await benchPeers(flags, (line) => lines.push(...line.split("\n")), () => {}), 0);
  assertMatch(lines[0], /^\d{4}-\d\d-\d\d, .+, \w+ .+/);
  const table = lines.filter((line) => line.startsWith("|")).map((line) => line.split("|").map((cell) => cell.trim()));
  const titles = table.filter(([, , side]) => side === "").map(([, title]) => title);
  assertEquals(titles, ["training, ms a step", "products, GF/s", "decoding, tokens/s"]);
  const all = table.filter(([, , side]) => side.startsWith("ours")),
    rows = all.filter(([, , side]) => !/native/.test(side));
  // In wide mode, V8 joins 128-bit vectors into 256-bit vectors. If this V8 does not have the mode, the output says so,
  // and only narrow mode (128 bits) is measured.
  const modes = lines.some((line) => line.startsWith("- ours, wide, left out")) ? ["narrow"] : ["wide", "narrow"];
  assertEquals(rows.map(([, , side]) => side), Array(11).fill(modes.map((mode) => `ours, ${mode}`)).flat());
  // Eight of the eleven measures use native products; decoding does not. A machine without them has no such row.
  const native = lines.some((line) => line.startsWith("- ours, native, left out")) ? 0 : 8;
  assertEquals(all.length - rows.length, native);
  for (const [, name, side, ...numbers] of all) {
    const [best, median, ratio] = numbers.map((cell) => Number(cell.replaceAll(",", "")));
    assert(best > 0 && median > 0, `${name}, ${side}: best ${best}, median ${median}`);
    if (side === "ours, wide") assertAlmostEquals(ratio, 1, 1e-9);
  }
  assertEquals(lines.filter((line) => line.startsWith("- ours, narrow: Deno")).length, 1);
});

Deno.test("bench:peers names a side that cannot run, and measures the remaining sides", async () => {
  const lines: string[] = [];
  const flags = ["--sides=ours,PyTorch", "--only=NN", "--small=True", "--rounds=1", "--seconds=0.01"];
  assertEquals(await benchPeers(flags, (line) => lines.push(line), () => {}), 0);
  // Tests have permission to run Deno alone.
  assert(lines.some((line) => /^- PyTorch, left out at matmul NN 48×16×20: .*python3/.test(line)), lines.join("\n"));
  assert(lines.some((line) => line.includes("ours, narrow")));
});
