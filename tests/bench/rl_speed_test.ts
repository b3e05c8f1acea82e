import { assert, assertEquals } from "@std/assert";
import { benchRlSpeed } from "../../bench/rl_speed.ts";

Deno.test("bench:rl_speed: each of our sides has a time, in milliseconds and in plain steps", async () => {
  const lines: string[] = [], flags = ["--small=True", "--rounds=1", "--iterations=2", "--threads=1"];
  assertEquals(await benchRlSpeed(flags, (line) => lines.push(line), () => {}), 0);
  const rows = lines.slice(1).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  assertEquals(rows.map(([name]) => name), [
    "a plain step of 768 tokens",
    "PPO, value head",
    "PPO, value model",
    "GRPO",
    "its completions",
    "rows of as many tokens",
  ]);
  assertEquals(rows[0][2], "1.0");
  for (const [name, ms, steps] of rows) assert(Number(ms) > 0 && Number(steps) > 0, name);
});
