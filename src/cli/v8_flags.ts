/**
 * Prints the V8 flags for the CPU device. The tasks set DENO_V8_FLAGS to them before they start the real process.
 *
 * `--no-liftoff` skips V8's fast first compiler, so that kernels run at full speed within milliseconds. Two flags turn
 * on the wide mode: `--experimental-wasm-revectorize` joins pairs of 128-bit operations into 256-bit operations, for
 * which `--no-wasm-bounds-checks` removes the bounds checks between loads. Releases of V8 with wide mode also get
 * `--no-wasm-inlining`: V8 then does not inline a kernel's functions into their callers, which would take long and
 * delay the first token. `NANOGPT_WIDE=0` turns wide mode off.
 *
 * ```sh
 * DENO_V8_FLAGS=$(deno run --allow-env=NANOGPT_WIDE jsr:@nanogpt/ts/cli/v8_flags) deno run … jsr:@nanogpt/ts/cli/train
 * ```
 *
 * @module
 */

/** Releases of V8 that were tested with the flags of wide mode. An unknown flag would end the process at its start. */
const wideReleases = ["15.0"];

/** Whether this V8 is known to have the flags of wide mode. */
export function wideAvailable({ arch = Deno.build.arch as string, v8 = Deno.version.v8 } = {}): boolean {
  return arch === "x86_64" && wideReleases.some((release) => v8.startsWith(`${release}.`));
}

/**
 * A line that says why kernels are narrow on a processor that may allow wide ones; undefined if V8 is not the reason.
 */
export function whyNarrow({ arch = Deno.build.arch as string, v8 = Deno.version.v8 } = {}): string | undefined {
  if (arch !== "x86_64" || wideAvailable({ arch, v8 })) return undefined;
  return `narrow: the flags for wide kernels are known only for V8 ${wideReleases.join(", ")}, and this is V8 ${v8}`;
}

/** The flags in the format of DENO_V8_FLAGS. */
export function v8Flags(wide: boolean): string {
  return wide
    ? "--experimental-wasm-revectorize,--no-wasm-bounds-checks,--no-wasm-inlining,--no-liftoff"
    : "--no-liftoff";
}

if (import.meta.main) {
  const wanted = !/^(0|false|off)$/i.test(Deno.env.get("NANOGPT_WIDE") ?? "");
  console.log(v8Flags(wanted && wideAvailable()));
}
