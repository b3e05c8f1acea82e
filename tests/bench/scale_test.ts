/** The benchmarks of scale, of generating and of a busy machine at tiny sizes. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { benchBusy } from "../../bench/busy.ts";
import { benchInference } from "../../bench/inference.ts";
import { benchScale } from "../../bench/scale.ts";
import { plot, plotLosses, type Point } from "../../examples/browser/plot.ts";
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

Deno.test("a plot of losses has its points where straight axes put them, and names the one pointed at", () => {
  const losses = { batches: [[0, 4], [50, 2], [100, 1]], heldOut: [[0, 4], [100, 2]], entropy: 1, last: 100 } as const;
  const size = { width: 400, height: 300 }, svg = plotLosses(losses, size, 220);
  const curve = (kind: string) => svg.match(`<polyline points="([^"]*)" class="${kind}"/>`)![1];
  // Between the margins, 46 and 14 across, 26 and 40 down; losses from 0 to 4.
  assertEquals([curve("train"), curve("val")], ["46.0,26.0 216.0,143.0 386.0,201.5", "46.0,26.0 386.0,143.0"]);
  assertMatch(svg, /<line x1="46.0" y1="201.5" x2="386.0" y2="201.5" class="entropy"\/>/);
  assertMatch(svg, /aria-label="Loss by iteration: 4.000 at first, 1.000 at 100, on held-out text 2.000"/);
  assertMatch(svg, />iteration 50: 2.000</);
  assert(!plotLosses(losses, size).includes("pointed"));
  const many = Array.from({ length: 1201 }, (_, i): Point => [i, i % 3]);
  const drawn = plotLosses({ ...losses, batches: many, last: 1200 }, size).match(/points="([^"]*)"/)![1].split(" ");
  assertEquals(drawn.length, 401); // means of three
  assertEquals(drawn[0].split(",")[1], "201.5"); // of 0, 1 and 2
  assertMatch(plotLosses({ batches: [], heldOut: [], entropy: undefined, last: 1 }, size), /nothing yet/);
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
