/**
 * The WebGPU device: runs the kernels' `.wgsl.ts` shaders, compiled on first use. Launches are recorded in one command
 * encoder, which is submitted before a write or a read, and after 512 dispatches.
 *
 * Buffers come from the device's pool. A launch therefore gets the same buffers in the next step, and its bind group is
 * found in a cache. The sizes and params of a launch are stored in a slot of a uniform buffer; each set of values is
 * written only once. The next read throws the errors of the GPU.
 */
import { bf16ToF32 } from "../half.ts";
import { DeviceError } from "../errors.ts";
import type { AnyKernel, AnyPass, NumberArray, StorageType } from "../kernel.ts";
import type { Profile } from "../engine/profile.ts";
import { type Capacity, type Command, Device, type Launch, type Storage } from "../engine/device.ts";
import { GpuClock } from "./gpu_clock.ts";
import { GpuErrors } from "./gpu_errors.ts";
import { type Compiled, Pipelines } from "./pipelines.ts";
import { joinQ8, splitQ8 } from "../engine/q8_0.ts";
import { bitsOf, blocksOf } from "../engine/storage.ts";

/** Bytes of a slot: 256, a multiple of the offset alignment of every adapter. */
const SLOT = 256, SLOTS = 4096;
/** Maximum number of dispatches before a submission, so that the GPU starts while the host still records. */
const BATCH = 512;
const MOST_GROUPS = 65535, MOST_BIND_GROUPS = 8192;

/** What to encode for one dispatch: its pipeline, bind group and numbers of workgroups. */
interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
}

export class WebGPUDevice extends Device {
  override readonly name = "webgpu";
  /** Description of the adapter. */
  readonly adapter: string;
  /** Numbers of objects made so far. A step that repeats an earlier step makes none. */
  get created(): Record<"buffers" | "bindGroups" | "pipelines", number> {
    return { buffers: this.#buffers.size, bindGroups: this.#groups, pipelines: this.#pipelines.count };
  }
  /** Numbers of command buffers and dispatches submitted to the GPU. */
  readonly submitted = { submits: 0, dispatches: 0 };
  /** WebGPU's own device. */
  readonly gpu: GPUDevice;
  readonly #pipelines: Pipelines;
  #bindGroups = new Map<string, GPUBindGroup>();
  #groups = 0;
  #uniforms: GPUBuffer;
  #slots = new Map<string, number>();
  #buffers = new Map<GPUBuffer, number>();
  /**
   * Placeholders of operands that were left out, one for each binding, because WebGPU refuses a writable buffer that is
   * bound twice.
   */
  #absent: GPUBuffer[] = [];
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #dispatches = 0;
  #clock: GpuClock | undefined;
  readonly #errors: GpuErrors;

  constructor(gpu: GPUDevice, adapter: string) {
    super();
    this.gpu = gpu;
    this.#errors = new GpuErrors(gpu);
    this.#pipelines = new Pipelines(gpu, this.#errors);
    this.adapter = adapter;
    this.#uniforms = this.#slotBuffer();
  }

  override get description(): string {
    return `${this.name} (${this.adapter})`;
  }
  override get capacity(): Capacity {
    const { maxStorageBufferBindingSize: binding, maxBufferSize: buffer } = this.gpu.limits;
    const limit = binding <= buffer ? "maxStorageBufferBindingSize" : "maxBufferSize";
    // WebGPU does not report the size of the GPU's memory, so `all` is infinite.
    return { all: Infinity, one: Math.min(binding, buffer), limit: `the adapter's ${limit}` };
  }
  override close(): void {
    super.close();
    this.#errors.close();
    this.gpu.destroy();
  }

  protected override take(length: number, dtype: StorageType): GPUBuffer {
    const size = Math.max(this.bytesOf(dtype) * length, SLOT), { one, limit } = this.capacity;
    if (size > one) {
      throw new DeviceError(`webgpu: a storage of ${size} bytes (${dtype}) is more than ${limit}, ${one}`);
    }
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.#errors.scoped(`a buffer of ${size} bytes`, () => this.gpu.createBuffer({ size, usage }));
    this.#buffers.set(buffer, this.#buffers.size);
    return buffer;
  }

  /** Bytes per element. q8_0 takes one byte for each integer and, after all integers, an f32 scale for every 32. */
  override bytesOf(dtype: StorageType): number {
    return dtype === "q8_0" ? 36 / 32 : super.bytesOf(dtype);
  }
  override write(storage: Storage, values: ArrayLike<number>): void {
    this.checkWrite(storage, values);
    this.flush(); // submits earlier launches first: they must not see the new values
    const { dtype, offset, block: { capacity } } = storage;
    if (dtype === "q8_0") {
      const { integers, scales } = splitQ8(blocksOf(values));
      this.gpu.queue.writeBuffer(bufferOf(storage), offset, integers);
      return this.gpu.queue.writeBuffer(bufferOf(storage), capacity + offset / 8, scales);
    }
    let data: BufferSource;
    if (dtype === "bf16") data = wholeWords(bitsOf(values), storage);
    else {
      const Numbers = dtype === "f32" ? Float32Array : Int32Array;
      data = values instanceof Numbers ? values as Float32Array<ArrayBuffer> : Numbers.from(values);
    }
    this.gpu.queue.writeBuffer(bufferOf(storage), this.bytesOf(dtype) * offset, data);
  }

  protected override async fetch(storage: Storage): Promise<NumberArray | Uint8Array<ArrayBuffer>> {
    const { dtype, length, block: { capacity } } = storage, bytes = this.bytesOf(dtype), q8 = dtype === "q8_0";
    const size = q8 ? bytes * capacity : Math.ceil(bytes * length / 4) * 4, begin = q8 ? 0 : bytes * storage.offset;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = this.gpu.createBuffer({ size, usage });
    this.#endPass();
    this.#commands().copyBufferToBuffer(bufferOf(storage), begin, staging, 0, size);
    this.flush();
    try {
      await this.#errors.settled();
      await this.#clock?.read();
      await staging.mapAsync(GPUMapMode.READ);
      const contents = staging.getMappedRange().slice(0);
      await this.#errors.settled();
      if (q8) {
        const scales = new Float32Array(contents, capacity + storage.offset / 8, length / 32);
        return joinQ8(new Uint8Array(contents, storage.offset, length), scales);
      }
      if (storage.dtype === "bf16") return bf16ToF32(new Uint16Array(contents, 0, storage.length));
      return storage.dtype === "f32" ? new Float32Array(contents) : new Int32Array(contents);
    } catch (error) {
      throw error instanceof DeviceError ? error : await this.#errors.explain(error);
    } finally {
      staging.destroy();
    }
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

  override parts({ kernel: { name, gpu } }: Launch): readonly AnyPass[] {
    if (!gpu) throw new DeviceError(`${name} has no WGSL implementation`);
    return Array.isArray(gpu) ? gpu : [gpu as AnyPass];
  }
  protected override prepare(launch: Launch, passes: readonly AnyPass[], workspace?: Storage): Command {
    const { kernel, storages, sizes, params } = launch, slot = this.#slot(kernel, sizes, params);
    const dispatches: Dispatch[] = [], variant = 2 * this.variantOf(launch) + Number(workspace !== undefined);
    for (const pass of passes) {
      const groups = pass.workgroups(sizes), rows = Math.ceil(groups / MOST_GROUPS);
      if (groups === 0) continue; // this pass does not apply to these sizes
      const compiled = this.#pipelines.get(pass, launch, { variant, workspace: workspace !== undefined });
      const group = this.#bind(compiled, slot, kernel, storages, workspace);
      dispatches.push({ pipeline: compiled.pipeline, group, x: rows > 1 ? MOST_GROUPS : groups, y: rows });
    }
    return () => this.#encode(kernel.name, dispatches);
  }

  #encode(kernel: string, dispatches: readonly Dispatch[]): void {
    this.#errors.check();
    this.#errors.latest = kernel;
    const encoder = this.#pass ??= this.#commands().beginComputePass();
    for (const { pipeline, group, x, y } of dispatches) {
      encoder.setPipeline(pipeline);
      encoder.setBindGroup(0, group);
      encoder.dispatchWorkgroups(x, y);
    }
    this.#dispatches += dispatches.length;
    if (this.#dispatches >= BATCH) this.flush();
  }

  /** Puts the launch into a pass of its own with timestamps, if the adapter has them. */
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
  /**
   * Offset of the slot with a launch's sizes and params. Slots are never overwritten, so launches not yet submitted
   * stay valid.
   */
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
      group = this.#errors.scoped(kernel.name, () =>
        this.gpu.createBindGroup({
          layout,
          entries: [
            { binding: 0, resource: { buffer: this.#uniforms, offset: slot, size: SLOT } },
            ...bound.map((storage, i) => ({ binding: i + 1, resource: this.#resource(storage, i) })),
          ],
        }));
      this.#bindGroups.set(key, group);
      this.#groups++;
    }
    return group;
  }
  #resource(storage: Storage | undefined, binding: number): GPUBufferBinding {
    if (!storage) {
      const buffer = this.#absent[binding] ??= this.gpu.createBuffer({ size: SLOT, usage: GPUBufferUsage.STORAGE });
      return { buffer };
    }
    // Shaders read bf16 and q8_0 in groups of four words; the capacity of a block is a multiple of that.
    const { dtype, length, block: { capacity } } = storage,
      bytes = this.bytesOf(dtype),
      unit = dtype === "bf16" ? 16 : 4;
    const size = dtype === "q8_0" ? bytes * capacity : Math.ceil(bytes * length / unit) * unit;
    return { buffer: bufferOf(storage), offset: bytes * storage.offset, size };
  }
}

/**
 * Pads an odd number of bf16 with a zero, because a GPU buffer is written in words of 32 bits. A block has room for it
 * at its end.
 */
function wholeWords(bits: Uint16Array, { block, offset, length }: Storage): Uint16Array<ArrayBuffer> {
  const even = length % 2 === 0;
  if (offset % 2 === 1 || (!even && offset + length <= block.capacity - 16)) {
    throw new DeviceError(
      `write: on a GPU, a part of a bf16 tensor starts and ends at even elements, not at ${offset} and ${
        offset + length
      }`,
    );
  }
  if (even) return bits as Uint16Array<ArrayBuffer>;
  const whole = new Uint16Array(length + 1);
  whole.set(bits);
  return whole;
}

const bufferOf = ({ block }: Storage): GPUBuffer => block.memory as GPUBuffer;
