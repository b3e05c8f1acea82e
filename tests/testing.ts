/** What the tests share: the devices, and comparisons that say what went wrong. */
import type { CpuOptions } from "../src/device/cpu.ts";
import { createDevice, type DeviceName } from "../src/device/create.ts";
import type { Device } from "../src/engine/device.ts";
import type { Tensor } from "../src/engine/tensor.ts";
import type { RandomGenerator } from "../src/random/mod.ts";

/** A device whose name is not known before the test runs; the options are the CPU's. */
export const openDevice = (name: string, options: CpuOptions = {}): Promise<Device> =>
  createDevice(name as DeviceName, name === "cpu" ? options : {});

export interface TestDevice {
  /** As test names show it: `reference`, `cpu narrow`, `cpu wide`. */
  readonly name: string;
  readonly device: Device;
}

/**
 * The devices that tests run on: the reference and the CPU, whose mode is the process's own, or those that
 * NANOGPT_TEST_DEVICES names (`webgpu:software,webgpu:dawn:software`).
 */
export async function devices(): Promise<TestDevice[]> {
  const names = Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["reference", "cpu"];
  return await Promise.all(names.map(async (name) => {
    const device = await openDevice(name, { guards: true });
    return { name: name === "cpu" ? `cpu ${wide() ? "wide" : "narrow"}` : name, device };
  }));
}

/** Whether the process was started with V8's flags of wide mode. */
function wide(): boolean {
  return (Deno.env.get("DENO_V8_FLAGS") ?? "").includes("revectorize");
}

export interface Limit {
  readonly atol: number;
  readonly rtol: number;
}

/** Throws unless |actual − expected| ≤ atol + rtol · |expected| everywhere; tells the element that misses by most. */
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

/** Runs `body` with a temporary folder, which is gone afterwards. */
export async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A command of src/cli as a process of its own, which may read and write files and nothing else. */
export function startCommand(name: string, args: readonly string[]): Deno.ChildProcess {
  const allowed = ["--allow-env=NANOGPT_DEBUG", "--allow-read", "--allow-write"];
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", ...allowed, `src/cli/${name}.ts`, ...args],
    cwd: new URL("../", import.meta.url),
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** What a process has printed when it has ended, as far as nobody has read it. */
export async function finished(child: Deno.ChildProcess): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await child.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

/** Runs a command of src/cli to its end. */
export const runCommand = (name: string, ...args: string[]): ReturnType<typeof finished> =>
  finished(startCommand(name, args));

/**
 * A file with one change at a place: a bit, a byte, cut off, or some bytes put in, taken out or said twice, or one of `own`, the
 * changes that hurt the format most. May change `bytes` too.
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
