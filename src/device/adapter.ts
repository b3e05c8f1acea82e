/** Finding an adapter, and opening it with all that it has. */
import { DeviceError } from "../errors.ts";
import { WebGPUDevice } from "./webgpu.ts";

/** Asked for where the adapter has them, needed by nothing: `gpu.features` of a device tells which are there. */
const FEATURES = ["timestamp-query", "shader-f16", "subgroups"] as const;
/** Those that kernels may come up against; of others the default is enough. */
const LIMITS = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/**
 * Opens an adapter with all the limits that it has.
 *
 * @param software whether it may be one that computes on the processor, or must not
 * @throws {DeviceError} when there is no such adapter
 */
export async function openWebGPU(gpu: GPU | undefined, { software = false } = {}): Promise<WebGPUDevice> {
  const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new DeviceError("webgpu: there is no adapter; the device cpu runs everywhere");
  const { info } = adapter,
    parts = [info.vendor, info.architecture, info.device, info.description],
    described = parts.filter((part) => part && !/^\d+$/.test(part)); // wgpu numbers vendors and devices
  const description = described.join(" ") || "an adapter without a name";
  if (isSoftware(info, description) && !software) {
    throw new DeviceError(
      `webgpu: the only adapter computes on the processor (${description}); webgpu:software asks for it`,
    );
  }
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  const requiredFeatures = FEATURES.filter((feature) => adapter.features.has(feature));
  return new WebGPUDevice(await adapter.requestDevice({ requiredLimits, requiredFeatures }), description);
}

const isSoftware = (info: GPUAdapterInfo, description: string): boolean =>
  info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|software|\bcpu\b/i.test(description);
