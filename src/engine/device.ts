/**
 * Devices: they allocate storages and run kernels on them, and know nothing of ops and gradients.
 *
 * Writes, launches and reads take effect in the order of the calls. Only reads are asynchronous.
 */
import { DeviceError, ShapeError } from "../errors.ts";
import type { AnyKernel, NumberArray, StorageType } from "../kernel.ts";
import type { Profile } from "./profile.ts";
import { checkShape, flatten, type NestedNumbers, type NewTensorOptions, sizeOf, Tensor } from "./tensor.ts";
import { Capture, type Command, Program } from "./program.ts";
import { Scope } from "./scope.ts";
import { Q8_0, q8ToF32 } from "./q8_0.ts";
import { Block, boundsOf, type Pool, Storage } from "./storage.ts";

export { Block, type Command, Program, Storage };

/** A kernel with all arguments of one run. The entries of each record are in the order of the kernel's declaration. */
export interface Launch {
  readonly kernel: AnyKernel;
  /** Storages by operand; optional operands that were left out have no entry. */
  readonly storages: Readonly<Record<string, Storage>>;
  readonly sizes: Readonly<Record<string, number>>;
  readonly params: Readonly<Record<string, number>>;
  /**
   * Names of updated operands that must be treated as zeros: they were just allocated, and their storage holds garbage.
   */
  readonly fresh: readonly string[];
}

/** The result of {@linkcode Device.memory}. */
export interface MemoryReport {
  /** Number of tensors that are alive. */
  readonly tensors: number;
  /** Bytes in storages that are in use. */
  readonly bytes: number;
  /** Bytes taken from the system: storages in use, and free blocks in the pool. */
  readonly reserved: number;
}

/** Limits of a device's memory, in bytes; infinite if there is no limit in practice. */
export interface Capacity {
  /** Limit of all storages together. */ readonly all: number;
  /** Limit of one storage. */ readonly one: number;
  /** The name, for messages, of the limit of one storage. */ readonly limit: string;
}

/** A part of a launch: a phase on the CPU, a compute pass on a GPU. */
interface Part {
  /** Number of floats of scratch memory that the part needs. */
  workspace?(sizes: Launch["sizes"]): number;
}

/** Key of a block in a pool: blocks with the same key are interchangeable. */
const keyOf = ({ dtype, capacity, panels }: Pick<Block, "dtype" | "capacity" | "panels">): string =>
  panels ? `${dtype}${panels.rows}x${panels.length}` : `${dtype}${capacity}`;

/**
 * Size class of a storage, in elements: `length` rounded up to one of eight steps between two powers of two. With few
 * sizes, a freed block often fits the next request.
 */
function sizeClass(length: number): number {
  const step = Math.max(16, 2 ** (Math.floor(Math.log2(Math.max(length, 1))) - 3));
  return Math.ceil(Math.max(length, 1) / step) * step;
}

/**
 * Holds tensors and computes with them. `createDevice` makes one. Applications use {@linkcode Device.tensor},
 * {@linkcode Device.scope}, {@linkcode Device.memory} and {@linkcode Device.close}; the other methods are for ops.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { add } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), x = device.tensor([1, 2], [2]);
 * {
 *   using _ = device.scope();
 *   assertEquals(add(x, x).shape, [2]);
 * }
 * assertEquals(device.memory().tensors, 1); // x; the scope has freed the sum
 * device.close();
 * ```
 */
export abstract class Device implements Disposable {
  /** The name that `createDevice` takes. */
  abstract readonly name: string;
  #closed = false;
  #pool: Pool = new Map();
  #capture: Capture | undefined;
  /** The pool of the program that lends its memory at the moment. */
  #lent: Pool | undefined;
  #scopes: Scope[] = [];
  #live = { tensors: 0, bytes: 0, reserved: 0 };

  /** Allocates memory for `length` elements from the system. @throws {DeviceError} when they do not fit */
  protected abstract take(length: number, dtype: StorageType): unknown;
  /** Bytes per element; a fraction for q8_0. */
  bytesOf(dtype: StorageType): number {
    return dtype === "q8_0" ? Q8_0.bytes / Q8_0.block : dtype === "bf16" ? 2 : 4;
  }
  /** Whether kernels use vectors of 256 bits (wide) or 128 bits (narrow); undefined for devices without that choice. */
  get mode(): "wide" | "narrow" | undefined {
    return undefined;
  }
  /** The device's name and properties, for a line of output. */
  get description(): string {
    return this.name;
  }
  /** The limits of the memory. */ get capacity(): Capacity {
    return { all: Infinity, one: Infinity, limit: "the system" };
  }
  /**
   * Writes values from the host into a storage. A bf16 storage rounds them to the nearest, or takes a Uint16Array as
   * the bits; a q8_0 storage quantises them, or takes a Uint8Array as GGUF's blocks.
   *
   * @throws {DeviceError} when the number of values is not that of the elements, or a value for i32 is not a 32-bit
   *   integer
   */
  abstract write(storage: Storage, values: ArrayLike<number>): void;
  /** @internal Calls `fill` with an array of zeros, then writes the array into a storage of floats. */
  fill(storage: Storage, fill: (values: Float32Array) => void): void {
    const values = new Float32Array(storage.length);
    fill(values);
    this.write(storage, values);
  }
  /** Copies a storage to the host, after all kernels launched so far have finished; q8_0 as its blocks. */
  protected abstract fetch(storage: Storage): Promise<NumberArray | Uint8Array<ArrayBuffer>>;
  /**
   * Copies a storage to the host.
   *
   * @throws {DeviceError} when the device is lost, an earlier launch has failed, or a capture is running
   */
  read(storage: Storage): Promise<NumberArray> {
    if (this.#capture) throw new DeviceError("read: a capture cannot read; read after it");
    const there = this.fetch(storage) as Promise<NumberArray>;
    return storage.dtype === "q8_0"
      ? there.then((all: NumberArray | Uint8Array<ArrayBuffer>) => all instanceof Uint8Array ? q8ToF32(all) : all)
      : there;
  }
  /**
   * Copies a storage to the host without conversion: q8_0 as GGUF's blocks (q8_0.ts), which can be saved again without
   * further rounding.
   */
  readStored(storage: Storage): Promise<NumberArray | Uint8Array<ArrayBuffer>> {
    if (this.#capture) throw new DeviceError("read: a capture cannot read; read after it");
    return this.fetch(storage);
  }
  /** @internal Returns the parts of a launch. */
  abstract parts(launch: Launch): readonly Part[];
  /** @internal Number of 32-bit words that a captured program has to store for a launch. */
  kept(_launch: Launch): number {
    return 0;
  }
  /**
   * Prepares a launch without running it. While a program is captured, `kept` is memory for the words that
   * `this.kept()` counts.
   *
   * @param parts the result of {@linkcode Device.parts}
   * @param workspace scratch memory, large enough for every part; the next launch may use the same memory
   * @returns a function that runs the launch
   * @internal
   */
  protected abstract prepare(launch: Launch, parts: readonly Part[], workspace?: Storage, kept?: Storage): Command;
  /** @internal Runs a launch. Only the function `launch` calls it, after it has checked the operands. */
  run(launch: Launch): void {
    const { profile } = this, parts = this.parts(launch), keeps = this.#capture ? this.kept(launch) : 0;
    let floats = 0;
    for (const part of parts) if (part.workspace) floats = Math.max(floats, part.workspace(launch.sizes));
    const workspace = floats > 0 ? this.allocate(floats, "f32") : undefined;
    workspace?.block.hold();
    workspace?.block.release();
    const kept = keeps > 0 ? this.allocate(keeps, "i32", { lasting: true }) : undefined;
    const prepared = this.prepare(launch, parts, workspace, kept);
    const command = profile ? this.timed(prepared, launch, profile) : prepared;
    this.#capture?.add(launch, command);
    command();
  }
  /**
   * Collects the times of launches. Set it before the launches to measure and, for a captured program, before the
   * capture.
   */
  profile: Profile | undefined;
  /** @internal Wraps a command to add its time to the profile, by the host's clock unless a device has its own. */
  protected timed(command: Command, launch: Launch, profile: Profile): Command {
    return () => {
      const begin = performance.now();
      command();
      profile.add(launch, performance.now() - begin);
    };
  }
  /** Starts all launches so far on a device that collects several before it submits them. Reading does so, too. */
  flush(): void {}
  /**
   * Whether a read returns without waiting. If false, a read waits for all earlier launches, and reads should be rare.
   */
  readonly readsAtOnce: boolean = true;
  /**
   * Stops the device's threads; `using` calls it. Tensors can still be read and freed afterwards; everything else
   * throws.
   */
  close(): void {
    this.#closed = true;
  }
  /** As close(). */ [Symbol.dispose](): void {
    this.close();
  }
  /** Whether close() was called. */ get closed(): boolean {
    return this.#closed;
  }

  /**
   * Allocates a storage, from the pool if a block of the size class is free. The contents are undefined.
   *
   * @param options.lasting whether a program that is being captured must not reuse the block; default false
   * @param options.matrix rows and row length of a matrix that only `linear`, `embedding` and `matmul` will read: the
   *   device may store it in panels
   */
  allocate(
    length: number,
    dtype: StorageType,
    { lasting = false, matrix }: { lasting?: boolean; matrix?: readonly [rows: number, length: number] } = {},
  ): Storage {
    if (this.#closed) throw new DeviceError(`${this.name}: the device is closed`);
    const width = this.panelWidth,
      panels = matrix && width > 0 ? { rows: matrix[0], length: matrix[1], width } : undefined;
    const capacity = panels ? Math.ceil(panels.rows / width) * width * panels.length : this.capacityFor(length, dtype);
    const key = keyOf({ dtype, capacity, panels }), capture = this.#capture;
    const first = lasting ? undefined : capture?.pool ?? this.#lent;
    let block = first?.get(key)?.pop() ?? this.#pool.get(key)?.pop();
    if (!block) {
      block = new Block(this, dtype, capacity, this.take(capacity, dtype), panels);
      block.pool = this.#pool;
      this.#live.reserved += capacity * this.bytesOf(dtype);
    }
    block.dropped = false;
    this.#live.bytes += capacity * this.bytesOf(dtype);
    if (lasting) capture?.hold(block);
    else capture?.own(block);
    return new Storage(block, length);
  }
  /** Number of rows in a panel; 0 if the device stores all matrices row by row. */
  get panelWidth(): number {
    return 0;
  }
  /**
   * Capacity of a new block for a storage of `length` elements. f32 and i32 are rounded up to a size class, for reuse;
   * bf16 and q8_0 weights live as long as the model and are rounded up only to whole units. On GPUs the scales of q8_0
   * are stored after the integers, at the rounded length, which shaders compute too (kernels/matmul).
   */
  protected capacityFor(length: number, dtype: StorageType): number {
    const unit = { f32: 0, i32: 0, bf16: 16, q8_0: 128 }[dtype];
    return unit ? Math.ceil(length / unit) * unit : sizeClass(length);
  }
  /** @internal Returns a block to its pool; called when nothing holds the block any more. */
  recycle(block: Block): void {
    const key = keyOf(block), pool = block.pool!, waiting = pool.get(key);
    if (waiting) waiting.push(block);
    else pool.set(key, [block]);
    this.#live.bytes -= block.capacity * this.bytesOf(block.dtype);
  }

  /**
   * Runs `body` and records all its launches in a program. {@linkcode Program.replay} runs them again without `body`,
   * like a CUDA graph in PyTorch, and computes the same bits.
   *
   * Tensors made before the capture are the program's inputs and outputs: write the next batch into them before a
   * replay. Values that `body` itself writes from the host are written only once. So numbers that change from step to
   * step must be in tensors made before the capture.
   *
   * @param body the step to record; the memory that it allocates belongs to the program
   * @returns the program; its `result` is what `body` returned
   * @throws {TypeError} when `body` is asynchronous
   * @throws {DeviceError} when `body` captures or reads
   */
  capture<T>(body: () => T): Program<T> {
    if (this.#capture) throw new DeviceError("capture: another capture is going on");
    const capture = this.#capture = new Capture(), free = (capture: Capture) => capture.release(this.#pool);
    try {
      const result = body();
      if (result instanceof Promise) throw new TypeError("capture: the body must not be asynchronous");
      return new Program(this, capture, result, free);
    } catch (error) {
      free(capture);
      throw error;
    } finally {
      this.#capture = undefined;
    }
  }
  /** @internal Runs `body` with allocations from `pool`: see {@linkcode Program.lend}. */
  lend<T>(pool: Pool, body: () => T): T {
    this.#lent = pool;
    try {
      return body();
    } finally {
      this.#lent = undefined;
    }
  }
  /** Counts tensors and bytes in use. The counts are equal before and after code that leaks nothing. */
  memory(): MemoryReport {
    return { ...this.#live };
  }

  /**
   * Makes a tensor with values from the host, like `torch.tensor`.
   *
   * @param values nested arrays, an array or a number; with `shape` also a flat array in row-major order
   * @param shape sizes above 0; [] for a single number; default: the shape of the nested arrays
   * @param options.dtype f32, i32, or, for weights that will not be trained, bf16 or q8_0. Default: i32 for an
   *   Int32Array, else f32, even for whole numbers
   * @param options.requiresGrad whether backward stores a gradient in `grad`; default: false
   * @throws {ShapeError} when the number of values does not match the shape, or nested arrays differ in length
   * @throws {DeviceError} when the values do not fit into the memory, or a value for i32 is not a 32-bit integer
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { createDevice } from "@nanogpt/ts";
   *
   * using device = await createDevice("cpu", { threads: 1 });
   * const x = device.tensor([[1, 2, 3], [4, 5, 6]]);
   * assertEquals(`${x}`, "Tensor [2, 3] f32 on cpu");
   * x.set([[6, 5, 4], [3, 2, 1]]);
   * assertEquals([...await x.data()], [6, 5, 4, 3, 2, 1]);
   * ```
   */
  tensor(values: NestedNumbers, options?: NewTensorOptions): Tensor;
  /** Makes a tensor of the given shape. */ tensor(
    values: NestedNumbers,
    shape: readonly number[],
    options?: NewTensorOptions,
  ): Tensor;
  tensor(values: NestedNumbers, second: readonly number[] | NewTensorOptions = {}, third?: NewTensorOptions): Tensor {
    const given = Array.isArray(second) ? second as readonly number[] : undefined;
    const options = third ?? (given ? {} : second as NewTensorOptions);
    const { numbers, shape } = flatten("tensor", values, given), integers = numbers instanceof Int32Array;
    const { dtype = integers ? "i32" : "f32" } = options;
    checkShape(shape);
    using scope = this.scope(); // frees the tensor if its values are not valid
    const tensor = new Tensor(this.#allocateFor(shape, dtype, options, true), shape, options);
    this.write(tensor.storage, numbers);
    return scope.keep(tensor);
  }

  /**
   * Makes a tensor with undefined contents, like `torch.empty`.
   *
   * @throws {ShapeError} when a size is not a whole number above 0
   * @throws {DeviceError} when the tensor does not fit into the memory, or the device is closed
   */
  empty(shape: readonly number[], options: NewTensorOptions = {}): Tensor {
    checkShape(shape);
    return new Tensor(this.#allocateFor(shape, options.dtype ?? "f32", options, false), shape, options);
  }
  #allocateFor(shape: readonly number[], dtype: StorageType, { panels }: NewTensorOptions, lasting: boolean): Storage {
    const [rows, length] = shape, q8 = dtype === "q8_0";
    if ((panels || q8) && shape.length !== 2 || q8 && length % Q8_0.block > 0) {
      throw new ShapeError(
        `tensor: [${shape}] cannot be ${
          q8 ? "q8_0: expected a matrix whose rows are a multiple of 32 long" : "in panels: expected a matrix"
        }`,
      );
    }
    return this.allocate(sizeOf(shape), dtype, { lasting, matrix: panels || q8 ? [rows, length] : undefined });
  }

  /**
   * Opens a scope. When it ends, it frees every tensor that was made in it and not returned through
   * {@linkcode Scope.keep}.
   *
   * @param op name of the op that opens the scope, for error messages; applications leave it out
   */
  scope(op?: string): Scope {
    const scope = new Scope(this.#scopes, op);
    this.#scopes.push(scope);
    return scope;
  }
  /** Name of the outermost op that is running, for messages. */
  get op(): string | undefined {
    return this.#scopes.find(({ op }) => op)?.op;
  }
  /** @internal Called by a tensor when it is made. */
  track(tensor: Tensor): void {
    this.#live.tensors++;
    this.#scopes.at(-1)?.adopt(tensor);
  }
  /** @internal Called by a tensor when it is freed. */
  untrack(): void {
    this.#live.tensors--;
  }

  /**
   * Encodes in one number which operands are present, fresh, bf16, q8_0 or in panels. {@linkcode Device.prepare} compiles
   * a kernel once for each such variant.
   *
   * @internal
   */
  protected variantOf({ kernel, storages, fresh }: Launch): number {
    let variant = 0;
    for (const { name } of kernel.operands) {
      const storage = storages[name];
      let state = storage ? 1 : 0;
      if (fresh.includes(name)) state = 2;
      else if (storage?.dtype === "bf16") state = 3;
      else if (storage?.dtype === "q8_0") state = 4;
      variant = 9 * variant + (storage?.panels ? state + 4 : state);
    }
    return variant;
  }
  /** For {@linkcode Device.write}: checks the values, and stores the range of integers in the block. */
  protected checkWrite(storage: Storage, values: ArrayLike<number>): void {
    const { length, offset, dtype } = storage, q8 = dtype === "q8_0";
    const expected = q8 && values instanceof Uint8Array ? length / Q8_0.block * Q8_0.bytes : length;
    if (values.length !== expected) throw new DeviceError(`write: ${values.length} values for a storage of ${length}`);
    if (q8 && (offset % Q8_0.block > 0 || length % Q8_0.block > 0)) {
      throw new DeviceError(`write: ${length} values from ${offset} on are not whole blocks of 32, as q8_0 needs`);
    }
    if (this.#capture?.owned.has(storage.block)) {
      throw new DeviceError("write: inside a capture, write only to tensors made before it, or make new tensors");
    }
    storage.block.changed();
    if (storage.dtype === "i32") storage.block.bounds = boundsOf(values);
  }
}
