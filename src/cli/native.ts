/** Matrix products in machine code, as the commands ask for them and speak of them. */
import { hasOption } from "../device/create.ts";
import type { Native } from "../device/cpu.ts";
import type { Values } from "./flags.ts";
import type { deviceFlags, nativeFlag } from "./shared_flags.ts";
import { taskCommand } from "./command.ts";

type Asked = Pick<Values<typeof deviceFlags & typeof nativeFlag>, "device" | "native">;

/** The code, where the flags ask for it; a line says what it takes, or why there is none. */
export async function nativeFor({ device, native }: Asked, note: (line: string) => void): Promise<Native | undefined> {
  if (!native) return undefined;
  if (!hasOption(device, "native")) return void note(`native: off, for it is the CPU's, and --device=${device}`);
  const { loadNative } = await import("../native/load.ts"), loaded = await loadNative();
  note(
    loaded.why ??
      "native: products run machine code that is written here; --allow-ffi, which that takes, lets code do anything",
  );
  return loaded;
}

/** What to type for a faster run, in a line. Only code that --allow-ffi lets in can ask the processor: so it says on which. */
export function nativeHint({ device, native }: Asked, task: string): string | undefined {
  if (native || !hasOption(device, "native") || Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return;
  return `On a processor with AVX-512 ${
    taskCommand(`${task}:native`, [])
  } is faster; its --allow-ffi lets code do anything`;
}
