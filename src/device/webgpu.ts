/**
 * The WebGPU device: each kernel's `.wgsl` file, compiled on first use; launches are recorded into one command encoder, which
 * is submitted when something is written or read.
 *
 * Buffers come from the device's pool, so the same launch finds the same buffers in the next step, and its bind group in a
 * cache. Sizes and params of a launch lie in a slot of one uniform buffer, which is written once for each set of values.
 * Errors of the GPU surface at the next read.
 */
import { DeviceError } from "../errors.ts";
import type { AnyKernel, AnyPass, DType, NumberArray } from "../kernel.ts";
import type { Profile } from "../profile.ts";
import { type Capacity, type Command, Device, type Launch, type Storage } from "./device.ts";
import { GpuClock } from "./gpu_clock.ts";
import { shaderError } from "./shader_errors.ts";

/** Bytes of a slot: what offsets are multiples of on every adapter. */
const SLOT = 256, SLOTS = 4096;
/** Dispatches after which the encoder is submitted without being asked, so that the GPU does not wait for the host. */
const BATCH = 512;
const MOST_GROUPS = 65535, MOST_BIND_GROUPS = 8192;

/** All that is needed to encode one. */
interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
}

/** Asked for where the adapter has them, needed by nothing: `gpu.features` of a device tells which are there. */
const FEATURES = ["timestamp-query", "shader-f16", "subgroups"] as const;

interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly number: number;
}

export class WebGPUDevice extends Device {
  override readonly name = "webgpu";
  protected override readonly bytesPerElement = 4;
  /** What the adapter says of itself. */
  readonly adapter: string;
  /** How many were made so far: none of them in a step that has been made before. */
  readonly created = { buffers: 0, bindGroups: 0, pipelines: 0 };
  /** How many command buffers and dispatches were handed to the GPU. */
  readonly submitted = { submits: 0, dispatches: 0 };
  /** WebGPU's own device. */
  readonly gpu: GPUDevice;
  #compiled = new Map<AnyPass, Map<number, Compiled>>();
  #bindGroups = new Map<string, GPUBindGroup>();
  #uniforms: GPUBuffer;
  #slots = new Map<string, number>();
  #buffers = new Map<GPUBuffer, number>();
  #absent: GPUBuffer;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #dispatches = 0;
  #checks: Promise<void>[] = [];
  #clock: GpuClock | undefined;
  #failure: DeviceError | undefined;
  /** An error outside of all scopes. Mostly it follows from one that a scope has seen, which is the one to tell. */
  #uncaptured: DeviceError | undefined;
  /** The kernel that was encoded last. */
  #latest = "any kernel";

  constructor(gpu: GPUDevice, adapter: string) {
    super();
    this.gpu = gpu;
    this.adapter = adapter;
    this.#uniforms = this.#slotBuffer();
    this.#absent = gpu.createBuffer({ size: SLOT, usage: GPUBufferUsage.STORAGE });
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault(); // or it is printed too
      this.#uncaptured ??= new DeviceError(`webgpu: ${(event as GPUUncapturedErrorEvent).error.message}`);
    });
    gpu.lost.then(({ reason, message }) => {
      if (!this.closed) this.#fail(`the device was lost in or before ${this.#latest}: ${message || reason}`);
    });
  }

  override get description(): string {
    return `${this.name} (${this.adapter})`;
  }
  override get capacity(): Capacity {
    const { maxStorageBufferBindingSize: binding, maxBufferSize: buffer } = this.gpu.limits;
    const limit = binding <= buffer ? "maxStorageBufferBindingSize" : "maxBufferSize";
    return { all: Infinity, one: Math.min(binding, buffer), limit: `the adapter's ${limit}` }; // WebGPU tells no more
  }
  override close(): void {
    super.close();
    this.gpu.destroy();
  }

  #fail(why: string): void {
    this.#failure ??= new DeviceError(`webgpu: ${why}`);
  }
  #check(): void {
    this.#failure ??= this.#uncaptured;
    if (this.#failure) throw this.#failure;
  }

  protected override take(length: number, dtype: DType): GPUBuffer {
    const size = Math.max(4 * length, SLOT), { one, limit } = this.capacity;
    if (size > one) {
      throw new DeviceError(`webgpu: a storage of ${size} bytes (${dtype}) is more than ${limit}, ${one}`);
    }
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.#scoped(`a buffer of ${size} bytes`, () => this.gpu.createBuffer({ size, usage }));
    this.#buffers.set(buffer, this.created.buffers++);
    return buffer;
  }

  override write(storage: Storage, values: ArrayLike<number>): void {
    this.checkWrite(storage, values);
    this.flush(); // what was launched before must not see it
    const Numbers = storage.dtype === "f32" ? Float32Array : Int32Array;
    const data = values instanceof Numbers ? values as Float32Array<ArrayBuffer> : Numbers.from(values);
    this.gpu.queue.writeBuffer(bufferOf(storage), 4 * storage.offset, data);
  }

  protected override async fetch(storage: Storage): Promise<NumberArray> {
    const size = 4 * storage.length, usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = this.gpu.createBuffer({ size, usage });
    this.#endPass();
    this.#commands().copyBufferToBuffer(bufferOf(storage), 4 * storage.offset, staging, 0, size);
    this.flush();
    await Promise.all(this.#checks.splice(0));
    this.#check();
    try {
      await this.#clock?.read();
      await staging.mapAsync(GPUMapMode.READ);
      const bytes = staging.getMappedRange().slice(0);
      this.#check();
      return storage.dtype === "f32" ? new Float32Array(bytes) : new Int32Array(bytes);
    } catch (error) {
      await this.#lost(); // which says why
      this.#check();
      throw new DeviceError(`webgpu: reading failed: ${(error as Error).message}`);
    } finally {
      staging.destroy();
    }
  }

  /** Waits a moment for the news that the device is lost: it may come after what fails because of it. */
  async #lost(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.gpu.lost, new Promise<void>((resolve) => timer = setTimeout(resolve, 100))]);
    clearTimeout(timer);
  }

  override readonly readsAtOnce = false;
  override flush(): void {
    this.#endPass();
    if (!this.#encoder) return;
    this.#clock?.collect(this.#encoder);
    this.gpu.queue.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.submitted.submits++;
    this.submitted.dispatches += this.#dispatches;
    this.#dispatches = 0;
  }
  #commands(): GPUCommandEncoder {
    return this.#encoder ??= this.gpu.createCommandEncoder();
  }
  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  protected override prepare(launch: Launch): Command {
    const { kernel, storages, sizes, params } = launch;
    if (!kernel.gpu) throw new DeviceError(`${kernel.name} has no WGSL implementation`);
    const passes = Array.isArray(kernel.gpu) ? kernel.gpu as AnyPass[] : [kernel.gpu as AnyPass];
    const workspace = this.workspace(passes, sizes), slot = this.#slot(kernel, sizes, params);
    const dispatches: Dispatch[] = [];
    for (const pass of passes) {
      const groups = pass.workgroups(sizes), rows = Math.ceil(groups / MOST_GROUPS);
      if (groups === 0) continue; // a pass for other sizes
      const compiled = this.#compile(pass, launch, workspace !== undefined), { pipeline } = compiled;
      const group = this.#bind(compiled, slot, kernel, storages, workspace);
      dispatches.push({ pipeline, group, x: rows > 1 ? MOST_GROUPS : groups, y: rows });
    }
    return () => this.#encode(kernel.name, dispatches);
  }

  #encode(kernel: string, dispatches: readonly Dispatch[]): void {
    if (this.#failure) throw this.#failure;
    this.#latest = kernel;
    const encoder = this.#pass ??= this.#commands().beginComputePass();
    for (const { pipeline, group, x, y } of dispatches) {
      encoder.setPipeline(pipeline);
      encoder.setBindGroup(0, group);
      encoder.dispatchWorkgroups(x, y);
    }
    this.#dispatches += dispatches.length;
    if (this.#dispatches >= BATCH) this.flush();
  }

  /** In a pass of its own, with timestamps around it, where the adapter has them. */
  protected override timed(command: Command, launch: Launch, profile: Profile): Command {
    if (!this.gpu.features.has("timestamp-query")) return super.timed(command, launch, profile);
    const clock = this.#clock ??= new GpuClock(this.gpu);
    profile.clock = "GPU";
    return () => {
      this.#endPass();
      if (clock.full) this.flush();
      this.#pass = this.#commands().beginComputePass({ timestampWrites: clock.next(launch, profile) });
      command();
      this.#endPass();
    };
  }

  #slotBuffer(): GPUBuffer {
    return this.gpu.createBuffer({ size: SLOT * SLOTS, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  }
  /** The offset of a launch's sizes and params. A slot never changes, so a launch that is still recorded is safe. */
  #slot(kernel: AnyKernel, sizes: Launch["sizes"], params: Launch["params"]): number {
    const values = Object.values(sizes), types = Object.keys(params).map((name) => kernel.params[name]);
    const key = `${values};${Object.values(params)};${types}`;
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    if (this.#slots.size === SLOTS) {
      this.#uniforms = this.#slotBuffer();
      this.#slots.clear();
      this.#bindGroups.clear();
    }
    const offset = SLOT * this.#slots.size, data = new DataView(new ArrayBuffer(SLOT));
    values.forEach((value, i) => data.setUint32(4 * i, value, true));
    Object.entries(params).forEach(([name, value], i) => {
      const at = 4 * (values.length + i);
      if (kernel.params[name] === "f32") data.setFloat32(at, value, true);
      else data.setInt32(at, value, true);
    });
    this.gpu.queue.writeBuffer(this.#uniforms, offset, data.buffer);
    this.#slots.set(key, offset);
    return offset;
  }

  /** The pipeline for the operands that are there and those that are fresh. */
  #compile(pass: AnyPass, launch: Launch, workspace: boolean): Compiled {
    const { kernel, storages, fresh } = launch;
    const variant = this.variantOf(launch) << 1 | Number(workspace);
    let variants = this.#compiled.get(pass);
    if (!variants) this.#compiled.set(pass, variants = new Map());
    let compiled = variants.get(variant);
    if (compiled) return compiled;

    const constants: Record<string, number> = {};
    for (const { name, optional } of kernel.operands) {
      const declares = (flag: string) => new RegExp(`override\\s+${flag}\\b`).test(pass.source);
      if (optional && declares(`has_${name}`)) constants[`has_${name}`] = name in storages ? 1 : 0;
      if (declares(`fresh_${name}`)) constants[`fresh_${name}`] = fresh.includes(name) ? 1 : 0;
    }
    const visibility = GPUShaderStage.COMPUTE,
      types: GPUBufferBindingType[] = kernel.operands.map(({ role }) =>
        role === "reads" ? "read-only-storage" : "storage"
      );
    if (workspace) types.push("storage");
    let module: GPUShaderModule;
    const create = () => {
      const layout = this.gpu.createBindGroupLayout({
        entries: [
          { binding: 0, visibility, buffer: { type: "uniform" } },
          ...types.map((type, i) => ({ binding: i + 1, visibility, buffer: { type } })),
        ],
      });
      module = this.gpu.createShaderModule({ label: pass.entry, code: pass.source });
      const pipeline = this.gpu.createComputePipeline({
        label: pass.entry,
        layout: this.gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: pass.entry, constants },
      });
      return { pipeline, layout, number: this.created.pipelines++ };
    };
    compiled = this.#scoped(`${kernel.name}: ${pass.entry}`, create, () => shaderError(module, pass));
    variants.set(variant, compiled);
    return compiled;
  }

  #bind(
    { layout, number }: Compiled,
    slot: number,
    kernel: AnyKernel,
    storages: Launch["storages"],
    workspace: Storage | undefined,
  ): GPUBindGroup {
    const bound: (Storage | undefined)[] = kernel.operands.map(({ name }) => storages[name]);
    if (workspace) bound.push(workspace);
    const part = (storage: Storage | undefined) =>
      storage ? `${this.#buffers.get(bufferOf(storage))}+${storage.offset}:${storage.length}` : "-";
    const key = `${number}@${slot}|${bound.map(part)}`;
    let group = this.#bindGroups.get(key);
    if (!group) {
      if (this.#bindGroups.size === MOST_BIND_GROUPS) this.#bindGroups.clear();
      group = this.#scoped(kernel.name, () =>
        this.gpu.createBindGroup({
          layout,
          entries: [
            { binding: 0, resource: { buffer: this.#uniforms, offset: slot, size: SLOT } },
            ...bound.map((storage, i) => ({ binding: i + 1, resource: this.#resource(storage) })),
          ],
        }));
      this.#bindGroups.set(key, group);
      this.created.bindGroups++;
    }
    return group;
  }
  #resource(storage: Storage | undefined): GPUBufferBinding {
    if (!storage) return { buffer: this.#absent };
    return { buffer: bufferOf(storage), offset: 4 * storage.offset, size: 4 * storage.length };
  }

  /** Creates something; what the GPU says against it surfaces at the next read, with its name or as `explain` has it. */
  #scoped<T>(what: string, create: () => T, explain?: () => Promise<string | undefined>): T {
    this.gpu.pushErrorScope("validation");
    this.gpu.pushErrorScope("out-of-memory");
    const made = create();
    for (let scope = 0; scope < 2; scope++) {
      const check = this.gpu.popErrorScope().then(async (error) => {
        if (error) this.#fail(await explain?.() ?? `${what}: ${error.message}`);
      });
      this.#checks.push(check);
    }
    return made;
  }
}

const bufferOf = ({ block }: Storage): GPUBuffer => block.memory as GPUBuffer;

/**
 * Opens an adapter with all the limits that it has.
 *
 * @param software whether it may be one that computes on the processor, or must not
 * @throws {DeviceError} when there is no such adapter
 */
export async function openWebGPU(gpu: GPU | undefined, software: boolean): Promise<WebGPUDevice> {
  const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new DeviceError("webgpu: there is no adapter; --device=cpu runs everywhere");
  const { info } = adapter,
    parts = [info.vendor, info.architecture, info.device, info.description],
    described = parts.filter((part) => part && !/^\d+$/.test(part)); // wgpu numbers vendors and devices
  const description = described.join(" ") || "an adapter without a name";
  if (isSoftware(info, description) && !software) {
    throw new DeviceError(
      `webgpu: the only adapter computes on the processor (${description}); webgpu:software asks for it`,
    );
  }
  const requiredLimits: Record<string, number> = {},
    wanted = [
      "maxStorageBufferBindingSize",
      "maxBufferSize",
      "maxStorageBuffersPerShaderStage",
      "maxComputeWorkgroupStorageSize",
      "maxComputeInvocationsPerWorkgroup",
      "maxComputeWorkgroupSizeX",
    ] as const;
  for (const name of wanted) requiredLimits[name] = adapter.limits[name];
  const requiredFeatures = FEATURES.filter((feature) => adapter.features.has(feature));
  return new WebGPUDevice(await adapter.requestDevice({ requiredLimits, requiredFeatures }), description);
}

const isSoftware = (info: GPUAdapterInfo, description: string): boolean =>
  info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|software|\bcpu\b/i.test(description);
