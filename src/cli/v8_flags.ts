/**
 * Prints the V8 flags for the CPU device; the tasks put them into DENO_V8_FLAGS before the real process starts.
 *
 * `--no-liftoff` skips the quick first compiler, so kernels are at full speed within milliseconds. The other two make the
 * wide mode: V8 joins pairs of 128-bit operations into 256-bit ones, which needs the bounds check between two loads gone. Releases
 * that have them also get `--no-wasm-inlining`: a kernel's functions are then compiled when they are called, and not into
 * whatever may call them, which would make the first token wait.
 * `NANOGPT_WIDE=0` leaves wide mode off.
 *
 * ```sh
 * DENO_V8_FLAGS=$(deno run --allow-env=NANOGPT_WIDE jsr:@nanogpt/ts/cli/v8_flags) deno run … jsr:@nanogpt/ts/cli/train
 * ```
 *
 * @module
 */

/** An unknown flag ends the process at its start, so wide's are named only to releases of V8 that were seen to have them. */
const wideReleases = ["15.0"];

/** Whether this V8 is known to take the flags of the wide mode. */
export function wideAvailable({ arch = Deno.build.arch as string, v8 = Deno.version.v8 } = {}): boolean {
  return arch === "x86_64" && wideReleases.some((release) => v8.startsWith(`${release}.`));
}

/** Why kernels are narrow on a processor that may do better, in a line; undefined where V8 is not the reason. */
export function whyNarrow({ arch = Deno.build.arch as string, v8 = Deno.version.v8 } = {}): string | undefined {
  if (arch !== "x86_64" || wideAvailable({ arch, v8 })) return undefined;
  return `narrow: V8's flags for wide kernels are known for V8 ${wideReleases.join(", ")}, and this is V8 ${v8}`;
}

/** The flags, as DENO_V8_FLAGS takes them. */
export function v8Flags(wide: boolean): string {
  return wide
    ? "--experimental-wasm-revectorize,--no-wasm-bounds-checks,--no-wasm-inlining,--no-liftoff"
    : "--no-liftoff";
}

if (import.meta.main) {
  const wanted = !/^(0|false|off)$/i.test(Deno.env.get("NANOGPT_WIDE") ?? "");
  console.log(v8Flags(wanted && wideAvailable()));
}
