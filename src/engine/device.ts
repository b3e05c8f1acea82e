/**
 * A device: storage, and kernels run on it. It knows nothing of what tensors mean.
 *
 * Writes, launches and reads take effect in the order of their calls; only a read's result is awaited.
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

/** A kernel with everything it needs; each record is in the order of the declaration. */
export interface Launch {
  readonly kernel: AnyKernel;
  /** Optional operands that were left out are missing. */
  readonly storages: Readonly<Record<string, Storage>>;
  readonly sizes: Readonly<Record<string, number>>;
  readonly params: Readonly<Record<string, number>>;
  /** Names of updated operands that begin as zeros, though their storage holds garbage. */
  readonly fresh: readonly string[];
}

/** What {@linkcode Device.memory} reports. */
export interface MemoryReport {
  /** Tensors that are alive. */
  readonly tensors: number;
  /** Bytes that they hold. */
  readonly bytes: number;
  /** Bytes taken from the system, those waiting in the pool included. */
  readonly reserved: number;
}

/** How much fits into a device, in bytes; infinite where there is no limit, or none that anybody could ask for. */
export interface Capacity {
  /** Of all storages together. */ readonly all: number;
  /** Of one storage, and the name of what limits it. */ readonly one: number;
  /** Names what limits one storage. */ readonly limit: string;
}

/** What a launch falls into: phases, passes. */
interface Part {
  workspace?(sizes: Launch["sizes"]): number;
}

/** What blocks have in common that can stand for one another. */
const keyOf = ({ dtype, capacity, panels }: Pick<Block, "dtype" | "capacity" | "panels">): string =>
  panels ? `${dtype}${panels.rows}x${panels.length}` : `${dtype}${capacity}`;

/** Storage lengths are rounded up to eight steps an octave, so that blocks find new users; in elements. */
function sizeClass(length: number): number {
  const step = Math.max(16, 2 ** (Math.floor(Math.log2(Math.max(length, 1))) - 3));
  return Math.ceil(Math.max(length, 1) / step) * step;
}

/**
 * Holds tensors and computes on them. Made by `createDevice`; {@linkcode Device.tensor}, {@linkcode Device.scope},
 * {@linkcode Device.memory} and {@linkcode Device.close} are what programs use, the rest is for ops.
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
 * assertEquals(device.memory().tensors, 1); // x; the sum went with its scope
 * device.close();
 * ```
 */
export abstract class Device implements Disposable {
  /** As `createDevice` takes it. */
  abstract readonly name: string;
  #closed = false;
  #pool: Pool = new Map();
  #capture: Capture | undefined;
  /** The pool of a program that lends its memory. */
  #lent: Pool | undefined;
  #scopes: Scope[] = [];
  #live = { tensors: 0, bytes: 0, reserved: 0 };

  /** Takes `length` elements from the system; throws {@linkcode DeviceError} where they do not fit. */
  protected abstract take(length: number, dtype: StorageType): unknown;
  /** Bytes an element takes. */
  bytesOf(dtype: StorageType): number {
    return dtype === "q8_0" ? Q8_0.bytes / Q8_0.block : dtype === "bf16" ? 2 : 4;
  }
  /** Whether kernels run in vectors of 256 bits or of 128; undefined where the device knows no such difference. */
  get mode(): "wide" | "narrow" | undefined {
    return undefined;
  }
  /** Name and figures, for a line of output. */
  get description(): string {
    return this.name;
  }
  /** What fits. */ get capacity(): Capacity {
    return { all: Infinity, one: Infinity, limit: "the system" };
  }
  /**
   * Puts values from the host into a storage, or into that part of a block that it is. For bf16 they are rounded to the
   * nearest; a Uint16Array is taken for its bits.
   *
   * @throws {DeviceError} when there are more or fewer values than elements, or one is no 32-bit integer where it has to be
   */
  abstract write(storage: Storage, values: ArrayLike<number>): void;
  /** @internal Has `fill` write all of a storage of floats, from the host. */
  fill(storage: Storage, fill: (values: Float32Array) => void): void {
    const values = new Float32Array(storage.length);
    fill(values);
    this.write(storage, values);
  }
  /** A copy of what is in a storage when all that was launched before is done; of q8_0, its blocks. */
  protected abstract fetch(storage: Storage): Promise<NumberArray | Uint8Array<ArrayBuffer>>;
  /**
   * A copy.
   *
   * @throws {DeviceError} when the device is lost or a launch before has failed, or within a capture, which cannot wait
   */
  read(storage: Storage): Promise<NumberArray> {
    if (this.#capture) throw new DeviceError("read: a capture cannot read; do it after");
    const there = this.fetch(storage) as Promise<NumberArray>;
    return storage.dtype === "q8_0"
      ? there.then((all: NumberArray | Uint8Array<ArrayBuffer>) => all instanceof Uint8Array ? q8ToF32(all) : all)
      : there;
  }
  /** The same, but of q8_0 the blocks as GGUF has them (q8_0.ts): what another file of that type is to hold. */
  readStored(storage: Storage): Promise<NumberArray | Uint8Array<ArrayBuffer>> {
    if (this.#capture) throw new DeviceError("read: a capture cannot read; do it after");
    return this.fetch(storage);
  }
  /** @internal What a launch falls into. */
  abstract parts(launch: Launch): readonly Part[];
  /** @internal How many numbers a program keeps for a launch. */
  kept(_launch: Launch): number {
    return 0;
  }
  /**
   * Makes a launch ready, and nothing more.
   *
   * @param parts as {@linkcode Device.parts} gives them
   * @param workspace of as many floats as any part wants; the next launch may have it
   * @param kept of as many numbers as {@linkcode Device.kept} tells, while a program is being captured
   * @internal
   */
  protected abstract prepare(launch: Launch, parts: readonly Part[], workspace?: Storage, kept?: Storage): Command;
  /** @internal Runs a launch that `launch` has checked; called by nothing else. */
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
  /** Where the times of launches go; set it before what is to be measured, a capture among that. */
  profile: Profile | undefined;
  /** @internal The same, with its time added to the profile: the host's where the device has no other. */
  protected timed(command: Command, launch: Launch, profile: Profile): Command {
    return () => {
      const begin = performance.now();
      command();
      profile.add(launch, performance.now() - begin);
    };
  }
  /** Has the device begin what has been launched so far, where it would wait for more. Reading does it by itself. */
  flush(): void {}
  /** Whether reading waits for nothing; else it waits for all that was launched before, and should be rare. */
  readonly readsAtOnce: boolean = true;
  /** Ends what the device runs besides (threads): `using` calls it. Its tensors can still be read and freed; all else throws. */
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
   * Contents are undefined: a pooled block keeps what it held.
   *
   * @param options.lasting whether a program that is being captured must not use the block for anything else; default false
   * @param options.matrix rows and length of a matrix that products and lookups alone will read: the device may lay it out for them
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
  /** How many rows of a matrix lie side by side in a panel; 0 where matrices lie row by row. */
  get panelWidth(): number {
    return 0;
  }
  /**
   * How long a block is taken for a storage: weights in bf16 find no new users, so they are not rounded up. On GPUs the scales of
   * q8_0 begin where its block's length ends, so shaders round up too (kernels/matmul).
   */
  protected capacityFor(length: number, dtype: StorageType): number {
    const unit = { f32: 0, i32: 0, bf16: 16, q8_0: 128 }[dtype];
    return unit ? Math.ceil(length / unit) * unit : sizeClass(length);
  }
  /** @internal Called when nothing holds the block any more. */
  recycle(block: Block): void {
    const key = keyOf(block), pool = block.pool!, waiting = pool.get(key);
    if (waiting) waiting.push(block);
    else pool.set(key, [block]);
    this.#live.bytes -= block.capacity * this.bytesOf(block.dtype);
  }

  /**
   * Runs `body`, and takes down every launch, to {@linkcode Program.replay} them all without it: what a CUDA graph is to
   * PyTorch. Results are the same bits.
   *
   * Tensors that were there before are the program's inputs and outputs: write the next batch into them before a replay.
   * Inside, what the host writes is written once, so numbers that change from step to step stand in such tensors.
   *
   * @param body the step; what it allocates belongs to the program
   * @returns the program, with what `body` returned as its `result`
   * @throws {TypeError} when `body` is asynchronous
   * @throws {DeviceError} when one capture is inside another, or reads
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
  /** @internal For {@linkcode Program.lend}. */
  lend<T>(pool: Pool, body: () => T): T {
    this.#lent = pool;
    try {
      return body();
    } finally {
      this.#lent = undefined;
    }
  }
  /** What is alive: the same before and after a piece of work that leaks nothing. */
  memory(): MemoryReport {
    return { ...this.#live };
  }

  /**
   * A tensor with values from the host, as `torch.tensor`.
   *
   * @param values nested arrays, a list or a number; with a shape also a flat list, row by row
   * @param shape sizes above 0, [] for a single number; default: that of the nesting
   * @param options.dtype f32, i32, or bf16 for weights that nothing will change; default: i32 for an Int32Array, else f32,
   *   for a number in JavaScript does not show whether an integer is meant
   * @param options.requiresGrad whether backward should leave a gradient in it; default: false
   * @throws {ShapeError} when there are more or fewer values than the shape has places, or nested arrays differ in length
   * @throws {DeviceError} when they do not fit into the memory, or one is no 32-bit integer where i32 is wanted
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
  /** With a shape. */ tensor(values: NestedNumbers, shape: readonly number[], options?: NewTensorOptions): Tensor;
  tensor(values: NestedNumbers, second: readonly number[] | NewTensorOptions = {}, third?: NewTensorOptions): Tensor {
    const given = Array.isArray(second) ? second as readonly number[] : undefined;
    const options = third ?? (given ? {} : second as NewTensorOptions);
    const { numbers, shape } = flatten("tensor", values, given), integers = numbers instanceof Int32Array;
    const { dtype = integers ? "i32" : "f32" } = options;
    checkShape(shape);
    using scope = this.scope(); // frees the tensor where its values are refused
    const tensor = new Tensor(this.#allocateFor(shape, dtype, options, true), shape, options);
    this.write(tensor.storage, numbers);
    return scope.keep(tensor);
  }

  /**
   * A tensor whose contents are undefined until a kernel or {@linkcode Tensor.set} puts them there, as `torch.empty`.
   *
   * @throws {ShapeError} when a size is no whole number above 0
   * @throws {DeviceError} when the device has no room for it, or is closed
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
   * Opens a scope: every tensor made until it ends is freed then, unless it is let out with {@linkcode Scope.keep}.
   *
   * @param op the op that opens it, which an error inside names; programs leave it out
   */
  scope(op?: string): Scope {
    const scope = new Scope(this.#scopes, op);
    this.#scopes.push(scope);
    return scope;
  }
  /** The op that was called, by itself or by others, and has not returned; for messages. */
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
   * @internal For {@linkcode Device.prepare}: which operands are there, and which are fresh, or stored as weights are, in one
   * number; code is compiled for each.
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
  /** For {@linkcode Device.write}: checks the values, and notes what there is to know of them. */
  protected checkWrite(storage: Storage, values: ArrayLike<number>): void {
    const { length, offset, dtype } = storage, q8 = dtype === "q8_0";
    const expected = q8 && values instanceof Uint8Array ? length / Q8_0.block * Q8_0.bytes : length;
    if (values.length !== expected) throw new DeviceError(`write: ${values.length} values for a storage of ${length}`);
    if (q8 && (offset % Q8_0.block > 0 || length % Q8_0.block > 0)) {
      throw new DeviceError(`write: ${length} values from ${offset} on are not whole blocks of 32 (q8_0)`);
    }
    if (this.#capture?.owned.has(storage.block)) {
      throw new DeviceError("write: a capture can write only tensors from before it, or make new ones");
    }
    storage.block.changed();
    if (storage.dtype === "i32") storage.block.bounds = boundsOf(values);
  }
}
