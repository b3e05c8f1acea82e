import { assertEquals, assertMatch } from "@std/assert";
import { v8Flags, wideAvailable } from "../../src/cli/v8_flags.ts";
import { NATIVE, whyNoNative } from "../native/available.ts";

const path = (file: string) => new URL(file, import.meta.url).pathname;

/**
 * The digests that bits.ts prints for 1, 2 and 4 threads, in a process with the given V8 flags and further flags of
 * Deno.
 */
async function digests(flags: string, ...more: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", ...more, path("./bits.ts"), "1", "2", "4"],
    env: { DENO_V8_FLAGS: flags },
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim().split("\n");
}

Deno.test("the same bits for 1, 2 and 4 threads, wide, narrow and native", async () => {
  const narrow = await digests(v8Flags(false));
  assertMatch(narrow[0], /^[0-9a-f]{64}$/);
  assertEquals(narrow, Array(3).fill(narrow[0]));
  if (wideAvailable()) assertEquals(await digests(v8Flags(true)), narrow);
  if (await whyNoNative() === undefined) {
    assertEquals(await digests(v8Flags(wideAvailable()), "--allow-ffi", `--preload=${NATIVE}`), narrow);
  }
});
