/**
 * The benchmark of reinforcement learning: one run of each method at β 0.5 comes near the optimum, and the printed
 * table is right.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { benchRl, openLetters, tune } from "../../bench/rl.ts";
import { createDevice } from "../../src/device/create.ts";
import { ConfigError } from "../../src/errors.ts";

Deno.test("rl: PPO, GRPO and DPO come near the optimum", async () => {
  using device = await createDevice("cpu");
  const letters = await openLetters(device), setting = { beta: 0.5, seed: 1 };
  for (const [method, effort] of [["ppo", 0.5], ["grpo", 0.25], ["dpo", 0.3]] as const) {
    const run = await tune(letters, { ...setting, method, effort });
    assert(run.near, `${method}: ${JSON.stringify(run)}`);
    if (run.rest) assert(run.rest[1] < run.distance, `${run.rest}`); // nearer to GRPO's fixed point than to π*
  }
});

Deno.test("rl: bench:rl prints a row for each run, and rejects invalid methods and betas", async () => {
  const lines: string[] = [], notes: string[] = [];
  const args = ["--methods=ppo,grpo", "--betas=0.5", "--seeds=1", "--effort=0.02", "--threads=1"];
  assertEquals(await benchRl(args, (line) => lines.push(line), (line) => notes.push(line)), 0);
  const cells = lines.map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assertEquals(cells.map(([method, , seed]) => `${method} ${seed}`).slice(2), ["ppo 1", "grpo 1"]);
  assert(cells.slice(2).every(({ length }) => length === cells[0].length));
  assertEquals(cells.slice(2).map((row) => row[7]), ["no", "no"]); // three iterations are not enough
  assertEquals(notes.length, 1);
  for (const wrong of ["--methods=ppo,sac", "--betas=0.5,0", "--betas=half"]) {
    await assertRejects(() => benchRl([wrong], () => {}, () => {}), ConfigError, wrong.slice(2, 7));
  }
});
