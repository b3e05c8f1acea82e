/**
 * Devices: where tensors live and are computed. {@linkcode createDevice} makes one by its name: the CPU by WebAssembly, a GPU by
 * WebGPU, or the reference in plain TypeScript.
 *
 * @module
 */
import { DeviceError, nearest } from "../errors.ts";
import { CpuDevice, type CpuOptions } from "./cpu.ts";
import type { Device } from "../engine/device.ts";
import { ReferenceDevice } from "./reference.ts";

/** What {@linkcode createDevice} takes. */
export type DeviceName =
  | ("auto" | "cpu" | "reference")
  | ("webgpu" | "webgpu:software" | "webgpu:dawn" | "webgpu:dawn:software");
/** What each device can be asked for. */
export type DeviceOptions = { readonly [Name in DeviceName]: Name extends "auto" | "cpu" ? CpuOptions : NoOptions };
/** Of a device that has none. */
export type NoOptions = { readonly [option: string]: undefined };

const CPU: readonly (keyof CpuOptions)[] = ["threads", "guards", "native"], NONE: readonly string[] = [];
/** By device, the options that it has. */
const OPTIONS: Readonly<Record<DeviceName, readonly string[]>> = {
  ...{ auto: CPU, cpu: CPU, reference: NONE },
  ...{ webgpu: NONE, "webgpu:software": NONE, "webgpu:dawn": NONE, "webgpu:dawn:software": NONE },
};

/** Whether a device has this name, which may come from a flag. */
export const isDeviceName = (name: string): name is DeviceName => Object.hasOwn(OPTIONS, name);
/** Whether the device can be asked for this. */
export const hasOption = (name: DeviceName, option: keyof CpuOptions): boolean => OPTIONS[name].includes(option);

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
 * @param options of `cpu`: `threads` (default: one for each processor), `native` (from `loadNative`), and `guards`, which tests turn on
 * @returns the device, when its threads have started
 * @throws {DeviceError} when the name or an option is not one of these, there is no adapter, or memory is refused
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 *
 * using device = await createDevice("cpu", { threads: 2 }); // closed at the end of the block
 * assertEquals([...await device.tensor([1, 2, 3]).data()], [1, 2, 3]);
 * ```
 */
export async function createDevice<Name extends DeviceName = "auto">(
  name?: Name,
  options?: DeviceOptions[Name],
): Promise<Device>;
export async function createDevice(name: DeviceName = "auto", options: CpuOptions = {}): Promise<Device> {
  if (!isDeviceName(name)) {
    throw new DeviceError(`No device is called ${name}; there are ${Object.keys(OPTIONS).join(", ")}`);
  }
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined || OPTIONS[name].includes(option)) continue;
    const meant = nearest(option, OPTIONS[name]), has = OPTIONS[name].join(" and ") || "none";
    throw new DeviceError(
      `The device ${name} has no option ${option}${meant ? `; did you mean ${meant}?` : `; it has ${has}`}`,
    );
  }
  if (name === "reference") return new ReferenceDevice();
  if (name === "auto" || name === "cpu") return await CpuDevice.create(options);
  const { openWebGPU } = await import("./adapter.ts");
  const gpu = name.includes(":dawn") ? await (await import("./dawn.ts")).dawn() : navigator.gpu;
  return await openWebGPU(gpu, { software: name.endsWith(":software") });
}
