/** Finds a WebGPU adapter and opens it as a device. */
import { DeviceError } from "../errors.ts";
import { WebGPUDevice } from "./webgpu.ts";

/** Optional features, requested if the adapter has them. `gpu.features` of the device lists the granted ones. */
const FEATURES = ["timestamp-query", "shader-f16", "subgroups"] as const;
/**
 * Limits that kernels can reach, requested at the adapter's maximum. WebGPU's defaults suffice for all other limits.
 */
const LIMITS = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/**
 * Opens an adapter with its maximum limits.
 *
 * @param software whether an adapter that computes on the CPU is accepted; default false
 * @throws {DeviceError} when there is no suitable adapter
 */
export async function openWebGPU(gpu: GPU | undefined, { software = false } = {}): Promise<WebGPUDevice> {
  const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new DeviceError("webgpu: there is no adapter; use the device cpu, which runs everywhere");
  const { info } = adapter,
    parts = [info.vendor, info.architecture, info.device, info.description],
    described = parts.filter((part) => part && !/^\d+$/.test(part)); // wgpu reports vendors and devices as numbers
  const description = described.join(" ") || "an adapter without a name";
  if (isSoftware(info, description) && !software) {
    throw new DeviceError(
      `webgpu: the only adapter computes on the processor (${description}); to use it, add :software to the name of the device`,
    );
  }
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  const requiredFeatures = FEATURES.filter((feature) => adapter.features.has(feature));
  return new WebGPUDevice(await adapter.requestDevice({ requiredLimits, requiredFeatures }), description);
}

const isSoftware = (info: GPUAdapterInfo, description: string): boolean =>
  info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|software|\bcpu\b/i.test(description);
