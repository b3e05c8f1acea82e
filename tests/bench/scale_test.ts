/** The benchmarks of scale, of generation and of a busy machine, at tiny sizes. */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { benchBusy } from "../../bench/busy.ts";
import { benchInference, quietMachine } from "../../bench/inference.ts";
import { readMemory } from "../../bench/read_memory.ts";
import { limitOf } from "../../bench/rows.ts";
import { benchScale } from "../../bench/scale.ts";
import { plot, plotLosses, type Point } from "../../src/page/plot.ts";
import { createDevice } from "../../src/device/create.ts";
import { launch } from "../../src/engine/launch.ts";
import { ConfigError } from "../../src/errors.ts";
import { inFolder } from "../testing.ts";

const quiet = () => {};
const cellsOf = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());

Deno.test("bench:scale measures every sweep, estimates the memory, and draws a plot", async () => {
  const lines: string[] = [], folder = await Deno.makeTempDir(), file = `${folder}/scaling.svg`;
  const flags = ["--small=True", "--seconds=0", "--threads=2", `--plot=${file}`];
  assertEquals(await benchScale(flags, (line) => lines.push(line), quiet), 0);
  const rows = lines.slice(2).map(cellsOf);
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

Deno.test("a plot places its points on logarithmic axes", () => {
  const points = [[1, 10], [10, 100], [100, 1000]] as const;
  const panel = { title: "a < b", xLabel: "x", yLabel: "y", slope: 1, series: [{ name: "", points }] };
  const svg = plot([panel], "three points");
  const centres = [...svg.matchAll(/cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [Number(x), Number(y)]);
  assertEquals(centres.length, 3);
  for (const axis of [0, 1]) {
    const [a, b, c] = centres.map((centre) => centre[axis]);
    assert(Math.abs((a + c) / 2 - b) < 0.11 && a !== c, `${a}, ${b}, ${c}`); // in the middle, to one decimal
  }
  assertMatch(svg, /a &lt; b/);
});

Deno.test("a plot of losses places its points on linear axes, and names the point under the pointer", () => {
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
  assertEquals(drawn.length, 401); // each point is the mean of three
  assertEquals(drawn[0].split(",")[1], "201.5"); // of 0, 1 and 2
  assertMatch(plotLosses({ batches: [], heldOut: [], entropy: undefined, last: 1 }, size), /nothing yet/);
});

Deno.test("bench:inference measures f32, bf16 and q8_0, and estimates the memory", async () => {
  const lines: string[] = [];
  const flags = ["--small=True", "--only=one", "--models=gpt2", "--threads=2", "--tokens=40"];
  assertEquals(await benchInference(flags, (line) => lines.push(line), quiet), 0);
  const rows = lines.slice(1).map(cellsOf);
  assertEquals(rows.map(([model, weights]) => `${model} ${weights}`), ["gpt2 f32", "gpt2 bf16", "gpt2 q8_0"]);
  for (const [, , estimated, taken, ...others] of rows) {
    assertEquals(estimated, taken);
    for (const positive of others) assert(parseFloat(positive) > 0, positive);
  }
  assert(parseFloat(rows[1][2]) < parseFloat(rows[0][2]));
  await assertRejects(() => benchInference(["--weights=f16"], quiet, quiet), ConfigError, "--weights has f16");
  await assertRejects(() => benchInference(["--rows=1,0"], quiet, quiet), ConfigError, "--rows has 0");
});

/** A stand-in for llama-batched-bench: prints its lines if it finds the GGUF and is asked for 3 texts. */
const LLAMA = `#!/bin/sh
head -c 4 "$2" | grep -q GGUF || exit 1
case "$*" in *"-npl 3,3,3 "*) ;; *) echo "not 3 texts" >&2; exit 1;; esac
echo '{"tg": 16, "pl": 3, "t_tg": 0.25}'
echo '{"tg": 16, "pl": 3, "t_tg": 0.75}'
`;

Deno.test({
  name: "bench:inference compares many texts with the installed libraries, and says how to install the rest",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inFolder(async (folder) => {
      const lines: string[] = [], llama = `${folder}/llama-batched-bench`;
      await Deno.writeTextFile(llama, LLAMA, { mode: 0o700 });
      const flags = ["--small=True", "--only=many", "--models=gpt2", "--weights=f32,q8_0", "--rows=1,3", "--threads=2"];
      const short = ["--rounds=1", "--seconds=0", `--llama=${llama}`];
      assertEquals(await benchInference([...flags, ...short], (line) => lines.push(...line.split("\n")), quiet), 0);
      const text = lines.join("\n"), number = "[\\d.,]+";
      assertMatch(text, /^- node-llama-cpp: left out: .*npm install .*node-llama-cpp@3/m);
      assertMatch(
        text,
        RegExp(`^gpt2; memory is read at ${number} GB/s \\(ours ${number}.*\\), products ${number} GF/s$`, "m"),
      );
      const rows = lines.filter((line) => /^\| (f32|q8_0) /.test(line)).map(cellsOf);
      const which = (side: string) => rows.filter((row) => row[2] === side).map((row) => row.slice(0, 2).join(" "));
      assertEquals(which("ours"), ["f32 1", "f32 3", "q8_0 1", "q8_0 3"]);
      for (const [, , side, best, median, toOurs, share] of rows) {
        assert(parseFloat(best) > 0 && parseFloat(share) >= 0);
        if (side === "ours") assertEquals(toOurs, "1");
        else if (side === "llama-batched-bench") assertEquals([best, median], ["96", "96"]);
      }
      assertEquals(which("llama-batched-bench"), ["f32 3", "q8_0 3"]);
      assertMatch(text, /^- llama-batched-bench, left out at gpt2, f32, 1 at once: not 3 texts$/m);
    }),
});

Deno.test("the limit of many texts comes from memory or from arithmetic, whichever is lower", () => {
  const sizes = { nLayer: 12, nHead: 12, nEmbd: 768, vocabSize: 50257, blockSize: 1024 };
  const request = { kind: "rows", weights: "f32", prompt: 32, tokens: 64, ...sizes } as const;
  // 494.1 MB of matrices, and 64 · 72 KiB of keys and values; 0.2471 GFLOP, and 2.36 MFLOP in attention.
  const limits = { memory: 30, product: 200 };
  assertAlmostEquals(limitOf({ ...request, rows: 1 }, limits), 30e9 / (494.1e6 + 64 * 72 * 1024), 0.02);
  assertAlmostEquals(limitOf({ ...request, rows: 8, weights: "q8_0" }, limits), 200e9 / (247.06e6 + 2.36e6), 0.5);
  assertAlmostEquals(
    limitOf({ ...request, rows: 1, weights: "bf16" }, limits),
    30e9 / (247.06e6 + 64 * 72 * 1024),
    0.05,
  );
});

Deno.test("the kernel that reads memory reads all of it", async () => {
  using device = await createDevice("cpu", { threads: 2 });
  const values = device.tensor(Float32Array.from({ length: 12 * 37 }, (_, i) => i), [12, 37]);
  const expected = Array.from({ length: 12 }, (_, row) => 37 * (37 * row + 18));
  assertEquals([...await launch(readMemory, { values }).sums.data()], expected);
});

Deno.test("bench:inference starts only on a quiet machine", () => {
  assertEquals(quietMachine(0.499), "load 0.50 before the start");
  assertThrows(() => quietMachine(0.5), ConfigError, "load 0.50 before the start; expected less than 0.5");
});

Deno.test("bench:busy measures a step alone and beside endless loops", async () => {
  const lines: string[] = [], flags = ["--small=True", "--seconds=0.05", "--rounds=1", "--loops=1", "--threads=1"];
  assertEquals(await benchBusy(flags, (line) => lines.push(line), quiet), 0);
  assertMatch(lines[2], /^\| alone \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$/);
  assertMatch(lines[3], /^\| beside 1 endless loops \| [\d.]+ \| /);
  assertMatch(lines.at(-1)!, /^\nratio of medians: \d+\.\d\d$/);
});
