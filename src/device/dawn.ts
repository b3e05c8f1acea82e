/**
 * Dawn, Chromium's WebGPU, out of the npm package `webgpu`: native code, which Deno loads only with `--allow-ffi`. The
 * package (132 MB) is fetched when a program first comes here.
 *
 * While something is awaited, Dawn asks whether the GPU is done at every turn of the event loop, through `setImmediate`: that
 * keeps a processor busy, and each question is a new native function. Under `deno test` (Deno 2.9.6) these were collected
 * for the first time when there were 360,000, and that took longer than anybody would wait. So what Dawn finds as
 * `setImmediate` waits, the longer the more has been waited already.
 */
import { DeviceError } from "../errors.ts";
import { importPackage } from "../packages.ts";

/** Kept, for the process ends when it is collected. */
let entry: GPU | undefined;

/**
 * Dawn's `navigator.gpu`.
 *
 * @throws {DeviceError} without the permission to load native code, and when the package cannot be had
 */
export async function dawn(): Promise<GPU> {
  if (entry) return entry;
  // Asked first: without the permission nothing should be fetched.
  if (((await globalThis.Deno?.permissions.request({ name: "ffi" }))?.state ?? "granted") !== "granted") {
    throw new DeviceError("webgpu:dawn: Dawn is native code, which Deno loads only with --allow-ffi");
  }
  try {
    const { create, globals } = await importPackage("webgpu");
    Object.assign(globalThis, globals);
    slowDown(globals);
    return entry = create([]) as GPU;
  } catch (error) {
    throw new DeviceError(`webgpu:dawn: ${(error as Error).message}`);
  }
}

/** Milliseconds of a wait in which Dawn may ask at every turn: what is done at once is not held up. */
const AT_ONCE = 0.5;
/** Then it asks again after this share of what has been waited, or after the most milliseconds. */
const SHARE = 1 / 8, MOST = 50;

/** Dawn's methods that begin to wait. */
const WAITING: readonly (readonly [type: string, method: string])[] = [
  ["GPU", "requestAdapter"],
  ["GPUAdapter", "requestDevice"],
  ["GPUDevice", "popErrorScope"],
  ["GPUBuffer", "mapAsync"],
  ["GPUQueue", "onSubmittedWorkDone"],
  ["GPUShaderModule", "getCompilationInfo"],
];

function slowDown(globals: Record<string, { prototype: Record<string, (...args: unknown[]) => unknown> }>): void {
  const usual = globalThis.setImmediate;
  let began = 0, question: (() => void) | undefined, timer: ReturnType<typeof setTimeout> | undefined;

  /** Calls into Dawn; it finds `wait` as `setImmediate`, and nobody else does. */
  function call<T>(native: () => T): T {
    globalThis.setImmediate = wait as typeof setImmediate;
    try {
      return native();
    } finally {
      globalThis.setImmediate = usual;
    }
  }
  function wait(ask: () => void): void {
    const waited = performance.now() - began;
    question = () => {
      question = timer = undefined;
      call(ask);
    };
    if (waited < AT_ONCE) usual(question);
    else timer = setTimeout(question, Math.min(waited * SHARE, MOST));
  }

  for (const [type, method] of WAITING) {
    const { prototype } = globals[type], native = prototype[method];
    prototype[method] = function (...args) {
      began = performance.now();
      if (timer !== undefined) { // somebody waits already, perhaps for long
        clearTimeout(timer);
        timer = undefined;
        usual(question!);
      }
      return call(() => native.apply(this, args));
    };
  }
}
