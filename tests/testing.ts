/** Helpers of the tests: devices, comparisons, processes, damaged files. */
import type { CpuOptions } from "../src/device/cpu.ts";
import { createDevice, type DeviceName } from "../src/device/create.ts";
import type { Device } from "../src/engine/device.ts";
import type { Tensor } from "../src/engine/tensor.ts";
import type { RandomGenerator } from "../src/random/mod.ts";

/** Makes a device by a name known only at run time; the options apply to the CPU only. */
export const openDevice = (name: string, options: CpuOptions = {}): Promise<Device> =>
  createDevice(name as DeviceName, name === "cpu" ? options : {});

export interface TestDevice {
  /** The name in titles of tests: `reference`, `cpu narrow` or `cpu wide`. */
  readonly name: string;
  readonly device: Device;
}

/**
 * Makes the devices that tests run on: the devices in NANOGPT_TEST_DEVICES (`webgpu:software,webgpu:dawn:software`), by
 * default the reference and the CPU. The CPU's mode is that of the process.
 */
export async function devices(): Promise<TestDevice[]> {
  const names = Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["reference", "cpu"];
  return await Promise.all(names.map(async (name) => {
    const device = await openDevice(name, { guards: true });
    return { name: name === "cpu" ? `cpu ${wide() ? "wide" : "narrow"}` : name, device };
  }));
}

/** Whether the process was started with V8's flags for wide mode. */
function wide(): boolean {
  return (Deno.env.get("DENO_V8_FLAGS") ?? "").includes("revectorize");
}

export interface Limit {
  readonly atol: number;
  readonly rtol: number;
}

/**
 * Throws unless |actual − expected| ≤ atol + rtol · |expected| for all elements; the message names the worst element.
 */
export function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: Limit, what: string): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} elements, expected ${expected.length}`);
  }
  let worst = -1, excess = 1;
  for (let i = 0; i < expected.length; i++) {
    const error = Object.is(actual[i], expected[i]) ? 0 : Math.abs(actual[i] - expected[i]);
    const share = error === 0 ? 0 : error / (limit.atol + limit.rtol * Math.abs(expected[i]));
    if (share <= excess) continue;
    worst = i;
    if (Number.isNaN(share)) break;
    excess = share;
  }
  if (worst < 0) return;
  const error = Math.abs(actual[worst] - expected[worst]);
  throw new Error(
    `${what}: element ${worst} of ${expected.length} is ${actual[worst]}, expected ${expected[worst]}: ` +
      `off by ${error.toExponential(2)}, allowed ${limit.atol} + ${limit.rtol} · |expected|`,
  );
}

export function assertShape(actual: Tensor, expected: readonly number[], what: string): void {
  if (`${actual.shape}` !== `${expected}` || actual.shape.length !== expected.length) {
    throw new Error(`${what}: shape [${actual.shape}], expected [${expected}]`);
  }
}

/** Runs `body` with a temporary folder, then removes the folder. */
export async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Starts a command of src/cli as a process with permission to read and write files only. `finetune` may also start Deno,
 * for reward functions.
 */
export function startCommand(name: string, args: readonly string[]): Deno.ChildProcess {
  const allowed = ["--allow-env=NANOGPT_DEBUG", "--allow-read", "--allow-write"];
  if (name === "finetune") allowed.push(`--allow-run=${Deno.execPath()}`);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", ...allowed, `src/cli/${name}.ts`, ...args],
    cwd: new URL("../", import.meta.url),
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Reads an output of a process until `wanted` has appeared, or to the end. @returns the output that was read */
export async function readUntil(
  child: Deno.ChildProcess,
  wanted: RegExp,
  output: "stdout" | "stderr" = "stdout",
): Promise<string> {
  const decoder = new TextDecoder();
  let shown = "";
  for await (const chunk of child[output].values({ preventCancel: true })) {
    shown += decoder.decode(chunk, { stream: true });
    if (wanted.test(shown)) break;
  }
  return shown;
}

/** Waits for the end of a process. @returns its exit code, and the output that was not read before */
export async function finished(child: Deno.ChildProcess): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await child.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

/** Runs a command of src/cli and waits for its end. */
export const runCommand = (name: string, ...args: string[]): ReturnType<typeof finished> =>
  finished(startCommand(name, args));

/** Milliseconds of processor time that this process has used. It does not advance while other programs run. */
export function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/**
 * Damages a file at a place, in a random way: flips a bit, sets a byte, truncates the file, inserts, removes or repeats
 * some bytes, or applies one of `own`, changes specific to the format. May change `bytes` in place.
 *
 * @returns the damaged file
 */
export function damaged(
  bytes: Uint8Array<ArrayBuffer>,
  at: number,
  random: RandomGenerator,
  own: readonly (() => Uint8Array<ArrayBuffer>)[],
): Uint8Array<ArrayBuffer> {
  const length = 1 + random.randint(16);
  const splice = (by: ArrayLike<number>, removed: number) =>
    Uint8Array.from([...bytes.subarray(0, at), ...Array.from(by), ...bytes.subarray(at + removed)]);
  const kind = random.randint(7 + own.length);
  switch (kind) {
    case 0:
    case 1:
      bytes[at] ^= 1 << random.randint(8);
      return bytes;
    case 2:
      bytes[at] = random.randint(256);
      return bytes;
    case 3:
      return bytes.slice(0, random.randint(bytes.length + 1));
    case 4:
      return splice(Array.from({ length }, () => random.randint(256)), 0);
    case 5:
      return splice([], length);
    case 6:
      return splice(bytes.subarray(at, at + length), 0);
    default:
      return own[kind - 7]();
  }
}
