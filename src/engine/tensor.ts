/** Tensors: a shape over a contiguous storage on a device, and the operation on the tape that made it. */
import { backward, type Node, release } from "./autograd.ts";
import type { Device, Storage } from "./device.ts";
import { layout } from "./storage.ts";
import type { Scope } from "./scope.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import type { NumberArray, StorageType } from "../kernel.ts";

/** Options of a tensor. */
export interface TensorOptions {
  /** Whether backward stores a gradient in {@linkcode Tensor.grad}; default false. */
  readonly requiresGrad?: boolean;
}

/** Options of a tensor with a new storage. */
export interface NewTensorOptions extends TensorOptions {
  /** Type of the elements. */ readonly dtype?: StorageType;
  /**
   * Whether only `linear`, `embedding` and the right side of `matmul` will read this matrix. The CPU then stores it in
   * panels, the order in which it multiplies fastest, and other ops refuse it. `data()` and `set()` still use rows.
   * Default: true for q8_0, else false.
   */
  readonly panels?: boolean;
}

/** A number, an array of numbers, or nested arrays of any depth. Arrays at the same depth have the same length. */
export type NestedNumbers = number | ArrayLike<number> | readonly NestedNumbers[];

const isList = (values: NestedNumbers): values is Exclude<NestedNumbers, number> =>
  typeof values === "object" && values !== null;

/**
 * Flattens nested arrays: their numbers row by row, and their shape.
 *
 * @param op name of the function that was called, for messages
 * @param shape the expected shape, if any; the values may then be flat, too
 * @throws {ShapeError} when arrays at the same depth differ in length or depth, or the values do not have the expected
 *   shape
 */
export function flatten(
  op: string,
  values: NestedNumbers,
  shape?: readonly number[],
): { readonly numbers: ArrayLike<number>; readonly shape: readonly number[] } {
  const flat = isList(values) && !isList(values[0]), found: number[] = [], numbers: number[] = [], place: number[] = [];
  const refuse = (what: string, why: string) => new ShapeError(`Cannot apply ${op} to ${what}: ${why}`);
  if (flat && (shape || ArrayBuffer.isView(values))) {
    const expected = shape ?? [values.length], size = sizeOf(expected);
    if (values.length === size) return { numbers: values as ArrayLike<number>, shape: expected };
    throw refuse(`${values.length} values and [${shape}]`, `expected ${size} values`);
  }
  for (let first = values; isList(first); first = first[0]) found.push(first.length);
  const collect = (inner: NestedNumbers, [size, ...below]: readonly number[]): void => {
    if (size === undefined ? typeof inner !== "number" : !isList(inner) || inner.length !== size) {
      const there = isList(inner) ? `a list of ${inner.length}` : `${inner}`;
      const expected = size === undefined ? "a number" : `a list of ${size}`;
      throw refuse(`values${place.map((i) => `[${i}]`).join("")}`, `it is ${there}, expected ${expected}`);
    }
    if (!isList(inner)) return void numbers.push(inner);
    for (let i = 0; i < inner.length; i++) {
      place.push(i);
      collect(inner[i], below);
      place.pop();
    }
  };
  collect(values, found);
  if (shape && `${found}` !== `${shape}`) throw refuse(`values of [${found}] and [${shape}]`, "the shapes differ");
  return { numbers, shape: found };
}

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Checks that a shape is valid. @throws {ShapeError} when a size is not a whole number above 0 */
export function checkShape(shape: readonly number[]): void {
  for (const size of shape) {
    if (Number.isInteger(size) && size > 0) continue;
    throw new ShapeError(`tensor: [${shape}] is not a valid shape; sizes are whole numbers above 0`);
  }
}

/** The dtype, or "panels", if a storage in it cannot be trained; undefined if it can. */
export const untrainable = ({ dtype, panels }: Storage): string | undefined =>
  dtype !== "f32" ? dtype : panels ? "panels" : undefined;

function checkTrainable(storage: Storage): void {
  const stored = untrainable(storage);
  if (stored) throw new TypeError(`tensor: ${stored} can have no gradient`);
}

/**
 * A multi-dimensional array of numbers on a device, like `torch.Tensor`. It is contiguous, in row-major order. Its
 * dtype is f32 or i32; weights can also be bf16 or q8_0. Ops return new tensors; only optimizers change tensors in
 * place. A tensor lives until its scope ends or `dispose()` is called.
 *
 * @see https://pytorch.org/docs/stable/tensors.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { mul, sum } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3], [3], { requiresGrad: true });
 * const y = sum(mul(x, x)); // 1 + 4 + 9
 * y.backward();
 * assertEquals(await y.item(), 14);
 * assertEquals([...await x.grad!.data()], [2, 4, 6]); // 2x
 * device.close();
 * ```
 */
export class Tensor implements Disposable {
  /** The gradient, of the tensor's shape, which `backward` adds to. Only leaves that require a gradient have one. */
  grad: Tensor | undefined;
  /** @internal The operation on the tape that made this tensor, if it requires a gradient and is not a leaf. */
  node: Node | undefined;
  /** The scope that will free this tensor, if any. */
  scope: Scope | undefined;
  /** The size of each axis; [] for a single number. */
  readonly shape: readonly number[];
  #leaf: boolean;
  #storage: Storage;
  #owned = true;
  /** Number of nodes on the tape that will read the contents. */
  #saved = 0;

  /**
   * Makes a tensor over an existing storage. {@linkcode Device.tensor} and {@linkcode Device.empty} make the storage,
   * too.
   *
   * @throws {ShapeError} when the shape and the storage differ in the number of elements, or a size is not a whole
   *   number above 0
   * @throws {TypeError} when a gradient is required of a storage that is not f32, or that is in panels
   */
  constructor(storage: Storage, shape: readonly number[], { requiresGrad = false }: TensorOptions = {}) {
    if (sizeOf(shape) !== storage.length) {
      throw new ShapeError(`tensor: [${shape}] over a storage of ${storage.length}`);
    }
    checkShape(shape);
    if (requiresGrad) checkTrainable(storage);
    this.shape = [...shape]; // copied, because the caller could change the array after the check
    this.#leaf = requiresGrad;
    this.#storage = storage;
    storage.block.hold();
    storage.device.track(this);
  }

  /** The storage of the elements. @throws {DeviceError} when the tensor has been freed */
  get storage(): Storage {
    if (!this.#owned && this.#saved === 0) {
      const op = this.device.op ?? "anything",
        why = "its scope has ended or it was disposed of; keep() it to use it later";
      throw new DeviceError(`Cannot apply ${op} to [${this.shape}]: it has been freed: ${why}`);
    }
    return this.#storage;
  }
  /** The device that holds the tensor. */ get device(): Device {
    return this.#storage.device;
  }
  /**
   * Type of the elements. Only `linear`, `embedding` and the right side of `matmul` take bf16 and q8_0 weights; a
   * key-value cache may be bf16, too.
   */
  get dtype(): StorageType {
    return this.#storage.dtype;
  }
  /** Number of elements. */
  get size(): number {
    return this.#storage.length;
  }
  /**
   * Whether backward computes a gradient for this tensor, like `torch.Tensor.requires_grad`: true for leaves made with
   * this option, and for results of ops on tensors that require one. It can be set on leaves; a gradient that already
   * exists is not changed.
   *
   * @throws {TypeError} when it is set on the result of an op, or to true on a tensor that is not f32, or that is in
   *   panels
   */
  get requiresGrad(): boolean {
    return this.#leaf || this.node !== undefined;
  }
  set requiresGrad(value: boolean) {
    if (this.node) throw new TypeError(`requiresGrad: [${this.shape}] is the result of ${this.node.op}, not a leaf`);
    if (value) checkTrainable(this.#storage);
    if (value !== this.#leaf) layout.changes++;
    this.#leaf = value;
  }
  /** Whether the tensor was freed, by its scope or by `dispose()`. */
  get freed(): boolean {
    return !this.#owned;
  }

  /**
   * Returns a tensor with another shape over the same storage, which requires no gradient: PyTorch's `detach().view()`.
   * Ops use it to call kernels of fixed rank. For a change of shape that gradients pass through, use `reshape`.
   *
   * @throws {ShapeError} when the shape has another number of elements
   * @throws {DeviceError} when the tensor has been freed
   */
  alias(shape: readonly number[]): Tensor {
    return new Tensor(this.storage, shape);
  }
  /**
   * Copies the elements to the host, in row-major order, after all kernels launched so far have finished.
   *
   * @returns Int32Array for i32, otherwise Float32Array; on the reference device Float64Array instead of Float32Array
   * @throws {DeviceError} when the tensor has been freed
   */
  data(): Promise<NumberArray> {
    return this.device.read(this.storage);
  }
  /**
   * Overwrites the elements with values from the host, like `torch.Tensor.copy_`: for example with the next batch,
   * before a captured program is replayed.
   *
   * @param values nested arrays of the tensor's shape, or a flat array in row-major order
   * @throws {ShapeError} when the number of values or the nesting does not match the shape
   * @throws {DeviceError} when the tensor has been freed, the tensor is i32 and a value is not a 32-bit integer, or the
   *   tensor was made in the capture that is running
   */
  set(values: NestedNumbers): void {
    this.device.write(this.storage, flatten("set", values, this.shape).numbers);
  }
  /**
   * Returns the only element, like `torch.Tensor.item`.
   *
   * @throws {ShapeError} when the tensor has more than one element
   */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new ShapeError(`Cannot apply item to [${this.shape}]: ${this.size} elements, expected one`);
    }
    return (await this.data())[0];
  }
  /**
   * Computes the gradient of this tensor with respect to every leaf that requires one and adds it to the leaf's `grad`,
   * like `torch.Tensor.backward`. The operations are removed from the tape, so it can run only once.
   *
   * @param seed f32, of this tensor's shape: the gradient to start with; default 1 for a tensor of one element
   * @throws {ShapeError} when the tensor has several elements and there is no seed, or the seed has another shape
   * @throws {TypeError} when the tensor requires no gradient, an earlier backward has consumed a part of the tape, or a
   *   saved tensor was changed in place
   */
  backward(seed?: Tensor): void {
    backward(this, seed);
  }

  /** Describes the tensor, as in `Tensor [2, 3] f32 on cpu`. Consoles show this text. */
  toString(): string {
    return `Tensor [${this.shape.join(", ")}] ${this.dtype} on ${this.device.name}${this.freed ? ", freed" : ""}`;
  }
  /** As toString(). */ [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
  /** As toString(). */ [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
  /** Frees the tensor. Contents that the tape still needs are freed after backward. A second call does nothing. */
  dispose(): void {
    if (!this.#owned) return;
    this.#owned = false;
    this.scope = undefined;
    this.device.untrack();
    if (this.#saved === 0) this.#storage.block.release();
    if (this.node) release(this.node);
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
  /**
   * Counts the nodes that need the contents; called by the tape with 1 when it saves the tensor and −1 when it no
   * longer needs it.
   */
  save(by: 1 | -1): void {
    this.#saved += by;
    if (by < 0 && this.#saved === 0 && !this.#owned) this.#storage.block.release();
  }
  /**
   * Makes a leaf use another storage of the same length, which already has the leaf's contents. An optimizer does this to
   * store all parameters in one block.
   */
  rebind(storage: Storage): void {
    if (storage.length !== this.size || this.node) {
      throw new ShapeError(`Cannot apply rebind to [${this.shape}]: it is not a leaf, or the length differs`);
    }
    storage.block.hold();
    this.#storage.block.release();
    this.#storage = storage;
    layout.changes++;
  }
}
