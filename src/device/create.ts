import { DeviceError } from "../errors.ts";
import { CpuDevice, type CpuOptions } from "./cpu.ts";
import type { Device } from "../engine/device.ts";
import { ReferenceDevice } from "./reference.ts";

/**
 * Makes a device by name:
 *
 * - `cpu`: WebAssembly on all processors;
 * - `reference`: plain TypeScript in f64, slow;
 * - `webgpu`: the GPU that `navigator.gpu` gives; `webgpu:dawn`: through `npm:webgpu`, fetched when it is named. With
 *   `:software` behind it, an adapter that computes on the processor will do;
 * - `auto`: the CPU, until WebGPU has been measured on GPUs.
 *
 * @param name default: `auto`
 * @param options of `cpu`: `threads` (default: one for each processor) and `guards`, which tests turn on
 * @returns the device, when its threads have started
 * @throws {DeviceError} when the name is none of these, there is no adapter, or memory is refused
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 2 });
 * assertEquals([...await device.tensor([1, 2, 3], [3]).data()], [1, 2, 3]);
 * device.close();
 * ```
 */
export async function createDevice(name = "auto", options: CpuOptions = {}): Promise<Device> {
  if (name === "reference") return new ReferenceDevice();
  if (name === "auto" || name === "cpu") return await CpuDevice.create(options);
  if (/^webgpu(:dawn)?(:software)?$/.test(name)) {
    const { openWebGPU } = await import("./adapter.ts");
    const gpu = name.includes(":dawn") ? await (await import("./dawn.ts")).dawn() : navigator.gpu;
    return await openWebGPU(gpu, name.endsWith(":software"));
  }
  throw new DeviceError(`no device is called ${name}; there are auto, cpu, webgpu and reference`);
}
