/**
 * Dawn, Chromium's implementation of WebGPU, from the npm package `webgpu`. It is native code, which Deno loads only
 * with `--allow-ffi`. The package (132 MB) is downloaded on first use.
 *
 * While a promise is pending, Dawn polls the GPU on every turn of the event loop, through `setImmediate`. This keeps a
 * processor busy, and each poll allocates a native function: under `deno test` (Deno 2.9.6) the first garbage
 * collection came after 360,000 of them and took so long that tests seemed to hang. So Dawn gets its own
 * `setImmediate`, which delays each poll by a fraction of the time waited so far.
 */
import { DeviceError } from "../errors.ts";
import { importPackage } from "../packages.ts";

/** Held for the life of the process, because the process would end when the object is collected. */
let entry: GPU | undefined;

/**
 * Returns Dawn's equivalent of `navigator.gpu`.
 *
 * @throws {DeviceError} without the permission to load native code, and when the package cannot be loaded
 */
export async function dawn(): Promise<GPU> {
  if (entry) return entry;
  // The permission comes first: without it the package must not be downloaded.
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

/** In the first milliseconds of a wait, Dawn polls on every turn, so that short waits are not delayed. */
const AT_ONCE = 0.5;
/** After that, each poll is delayed by this fraction of the time waited so far, but by at most MOST milliseconds. */
const SHARE = 1 / 8, MOST = 50;

/** Dawn's methods that start a wait. */
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

  /** Calls Dawn with `wait` in place of `setImmediate`; all other code uses the usual one. */
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
      if (timer !== undefined) { // an earlier wait is polling slowly: polls at once again
        clearTimeout(timer);
        timer = undefined;
        usual(question!);
      }
      return call(() => native.apply(this, args));
    };
  }
}
