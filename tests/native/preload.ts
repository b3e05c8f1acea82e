/** Gives every CPU device of a test process the native tile: `deno test --allow-ffi --preload=tests/native/preload.ts …`. */
import { CpuDevice } from "../../src/device/cpu.ts";
import { loadNative } from "../../src/native/load.ts";

const native = await loadNative(), create = CpuDevice.create;
if (!native.tile) throw new Error(native.why);
CpuDevice.create = (options) => create.call(CpuDevice, { native, ...options });
