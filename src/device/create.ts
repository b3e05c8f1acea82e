/**
 * Devices, which hold tensors and compute with them. {@linkcode createDevice} makes one by name: the CPU (WebAssembly),
 * a GPU (WebGPU), or the reference (plain TypeScript).
 *
 * @module
 */
import { DeviceError, nearest } from "../errors.ts";
import { CpuDevice, type CpuOptions } from "./cpu.ts";
import type { Device } from "../engine/device.ts";
import { ReferenceDevice } from "./reference.ts";

/** Names of the devices that {@linkcode createDevice} makes. */
export type DeviceName =
  | ("auto" | "cpu" | "reference")
  | ("webgpu" | "webgpu:software" | "webgpu:dawn" | "webgpu:dawn:software");
/** The options of each device. */
export type DeviceOptions = { readonly [Name in DeviceName]: Name extends "auto" | "cpu" ? CpuOptions : NoOptions };
/** The options of a device without options. */
export type NoOptions = { readonly [option: string]: undefined };

const CPU: readonly (keyof CpuOptions)[] = ["threads", "guards", "native"], NONE: readonly string[] = [];
/** Names of the options of each device. */
const OPTIONS: Readonly<Record<DeviceName, readonly string[]>> = {
  ...{ auto: CPU, cpu: CPU, reference: NONE },
  ...{ webgpu: NONE, "webgpu:software": NONE, "webgpu:dawn": NONE, "webgpu:dawn:software": NONE },
};

/** Whether a text, such as the value of a flag, is the name of a device. */
export const isDeviceName = (name: string): name is DeviceName => Object.hasOwn(OPTIONS, name);
/** Whether a device has an option. */
export const hasOption = (name: DeviceName, option: keyof CpuOptions): boolean => OPTIONS[name].includes(option);

/**
 * Makes a device by name:
 *
 * - `cpu`: WebAssembly on all processors;
 * - `reference`: plain TypeScript in f64, slow;
 * - `webgpu`: the GPU of `navigator.gpu`;
 * - `webgpu:dawn`: the GPU through the npm package `webgpu`, which is downloaded on first use;
 * - `webgpu:software` and `webgpu:dawn:software`: accept an adapter that computes on the CPU, too;
 * - `auto`: the same device as `cpu`, until WebGPU has been measured on GPUs.
 *
 * @param name default: `auto`
 * @param options only for `cpu` and `auto`: `threads` (default: one for each processor), `native` (from `loadNative`),
 *   and `guards`, which tests use
 * @returns the device, after its threads have started
 * @throws {DeviceError} when the name or an option is not valid, there is no adapter, or the system refuses the memory
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
