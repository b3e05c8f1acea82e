/** The benchmarks of scale, of generating and of a busy machine at tiny sizes. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { benchBusy } from "../../bench/busy.ts";
import { benchInference } from "../../bench/inference.ts";
import { plot } from "../../bench/plot.ts";
import { benchScale } from "../../bench/scale.ts";
import { ConfigError } from "../../src/errors.ts";

const quiet = () => {};

Deno.test("bench:scale measures every sweep, foresees the memory, and draws it", async () => {
  const lines: string[] = [], folder = await Deno.makeTempDir(), file = `${folder}/scaling.svg`;
  const flags = ["--small=True", "--seconds=0", "--threads=2", `--plot=${file}`];
  assertEquals(await benchScale(flags, (line) => lines.push(line), quiet), 0);
  const rows = lines.slice(2).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assertEquals(
    rows.map(([sweep]) => sweep),
    "size size context context batch batch threads threads threads threads".split(" "),
  );
  for (const [sweep, , context, batch, , , tokens, ms, rate, gflops, foreseen, taken] of rows) {
    assertEquals(Number(tokens), Number(context) * Number(batch));
    for (const positive of [ms, rate, gflops]) assert(parseFloat(positive) > 0, `${sweep}: ${positive}`);
    assert(parseFloat(foreseen) > 0);
    assertEquals(foreseen, taken);
  }
  const svg = await Deno.readTextFile(file);
  for (const label of ["parameters", "context (tokens)", "batch (sequences)", "ms a step"]) {
    assert(svg.includes(`>${label}<`));
  }
  assertEquals(svg.match(/<circle/g)?.length, rows.length);
  await Deno.remove(folder, { recursive: true });
  await assertRejects(() => benchScale(["--sweep=size,width"], quiet, quiet), ConfigError, "--sweep has width");
});

Deno.test("a plot has its points where logarithms put them", () => {
  const points = [[1, 10], [10, 100], [100, 1000]] as const;
  const panel = { title: "a < b", xLabel: "x", yLabel: "y", slope: 1, series: [{ name: "", points }] };
  const svg = plot([panel], "three points");
  const centres = [...svg.matchAll(/cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [Number(x), Number(y)]);
  assertEquals(centres.length, 3);
  for (const axis of [0, 1]) {
    const [a, b, c] = centres.map((centre) => centre[axis]);
    assert(Math.abs((a + c) / 2 - b) < 0.11 && a !== c, `${a}, ${b}, ${c}`); // in the middle, but for one decimal
  }
  assertMatch(svg, /a &lt; b/);
});

Deno.test("bench:inference measures f32 and bf16, and foresees the memory", async () => {
  const lines: string[] = [];
  const flags = ["--small=True", "--models=gpt2", "--threads=2", "--tokens=40"];
  assertEquals(await benchInference(flags, (line) => lines.push(line), quiet), 0);
  const rows = lines.slice(1).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assertEquals(rows.map(([model, weights]) => `${model} ${weights}`), ["gpt2 f32", "gpt2 bf16"]);
  for (const [, , foreseen, taken, ...others] of rows) {
    assertEquals(foreseen, taken);
    for (const positive of others) assert(parseFloat(positive) > 0, positive);
  }
  assert(parseFloat(rows[1][2]) < parseFloat(rows[0][2]));
  await assertRejects(() => benchInference(["--weights=f16"], quiet, quiet), ConfigError, "--weights has f16");
});

Deno.test("bench:busy measures alone and beside loops", async () => {
  const lines: string[] = [], flags = ["--small=True", "--seconds=0.05", "--rounds=1", "--loops=1", "--threads=1"];
  assertEquals(await benchBusy(flags, (line) => lines.push(line), quiet), 0);
  assertMatch(lines[2], /^\| alone \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$/);
  assertMatch(lines[3], /^\| beside 1 endless loops \| [\d.]+ \| /);
  assertMatch(lines.at(-1)!, /^\nratio of medians: \d+\.\d\d$/);
});
