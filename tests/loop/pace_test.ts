import { assertEquals } from "@std/assert";
import { Pace } from "../../src/loop/pace.ts";

/** The numbers of steps between reads when a step takes `each` milliseconds and a read `wait`. */
function steps(each: number, wait: number, waits: number, most?: number): number[] {
  let time = 0;
  const pace = new Pace(60, most, () => time);
  return Array.from({ length: waits }, () => {
    const { steps } = pace;
    time += steps * each + wait;
    pace.waited();
    return steps;
  });
}

Deno.test("pace: the number of steps doubles until the time between reads is about the given one", () => {
  assertEquals(steps(1, 11, 9), [1, 2, 4, 8, 16, 32, 44, 48, 48]); // 44 = 32 · 60 / 43; 48 = 44 · 60 / 55; then 59 ms are close enough
  assertEquals(steps(1, 11, 9, 20), [1, 2, 4, 8, 16, 20, 20, 20, 20]);
  assertEquals(steps(100, 0, 4), [1, 1, 1, 1]); // always at least one
});

Deno.test("pace: the number falls as soon as steps take longer, and time before begin() is not counted", () => {
  let time = 0;
  const pace = new Pace(60, 64, () => time),
    run = (ms: number) => {
      time += 1e6; // time of other code
      pace.begin();
      time += ms;
      pace.waited();
      return pace.steps;
    };
  assertEquals([20, 20, 20, 120, 600].map(run), [2, 4, 8, 4, 1]);
});
