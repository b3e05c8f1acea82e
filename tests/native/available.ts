/** Whether the native tile runs on this machine, for tests that start processes with it. */
import { v8Flags, wideAvailable } from "../../src/cli/v8_flags.ts";

/** A module for `--preload` that gives every CPU device of a process the native tile. */
export const NATIVE = new URL("./preload.ts", import.meta.url).pathname;

/** The reason in one line for which the native tile does not run here; undefined if it runs. */
export async function whyNoNative(): Promise<string | undefined> {
  const args = ["run", "--no-prompt", "--no-check", "--allow-ffi", NATIVE];
  const env = { DENO_V8_FLAGS: v8Flags(wideAvailable()), NO_COLOR: "1" };
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args, env }).output();
  return success ? undefined : new TextDecoder().decode(stderr).match(/native: .*/)?.[0] ?? "native: its test fails";
}
