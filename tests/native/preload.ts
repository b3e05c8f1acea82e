/** Gives every CPU device of a test process the native tile: `deno test --allow-ffi --preload=tests/native/preload.ts …`. */
import { CpuDevice } from "../../src/device/cpu.ts";
import { loadNative } from "../../src/native/load.ts";

// Loading measures the tile, and refuses a slow one. On a busy processor the tile could seem slow, and tests compare
// bits and not speeds. So this clock makes all measured code seem to take the same very short time.
const { now } = performance;
let time = 0;
performance.now = () => time += 1e-9;
const native = await loadNative().finally(() => performance.now = now), create = CpuDevice.create;
if (!native.tile) throw new Error(native.why);
CpuDevice.create = (options) => create.call(CpuDevice, { native, ...options });
