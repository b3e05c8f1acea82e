/** The flag `--native`: matrix products in machine code. */
import { hasOption } from "../device/create.ts";
import type { Native } from "../device/cpu.ts";
import type { Values } from "./flags.ts";
import type { deviceFlags, nativeFlag } from "./shared_flags.ts";
import { taskCommand } from "./command.ts";

type Asked = Pick<Values<typeof deviceFlags & typeof nativeFlag>, "device" | "native">;

/** Loads the machine code if the flags ask for it. Prints a line about its permission, or why it is not used. */
export async function nativeFor({ device, native }: Asked, note: (line: string) => void): Promise<Native | undefined> {
  if (!native) return undefined;
  if (!hasOption(device, "native")) return void note(`native: off, because it is for the CPU, and --device=${device}`);
  const { loadNative } = await import("../native/load.ts"), loaded = await loadNative();
  note(
    loaded.why ??
      "native: matrix products run as machine code; this needs --allow-ffi, with which a program can do anything",
  );
  return loaded;
}

/**
 * A line that recommends `--native`; undefined if it cannot help. The line names the processors that can use it,
 * because this program cannot ask which processor it runs on without `--allow-ffi`.
 */
export function nativeHint({ device, native }: Asked, task: string): string | undefined {
  if (native || !hasOption(device, "native") || Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return;
  return `On a processor with AVX-512 ${
    taskCommand(`${task}:native`, [])
  } is faster; it needs --allow-ffi, with which a program can do anything`;
}
