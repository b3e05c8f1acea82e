/** A tensor: a shape over a device's storage, contiguous, and its place on the tape. */
import { backward, type Node, release } from "./autograd.ts";
import type { Device, Storage } from "./device.ts";
import { layout } from "./storage.ts";
import type { Scope } from "./scope.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import type { NumberArray, StorageType } from "../kernel.ts";

/** How a tensor is made. */
export interface TensorOptions {
  /** Whether backward should leave a gradient in {@linkcode Tensor.grad}. */
  readonly requiresGrad?: boolean;
}

/** Of a tensor that gets a storage of its own. */
export interface NewTensorOptions extends TensorOptions {
  /** Of its elements. */ readonly dtype?: StorageType;
  /**
   * Whether it is a matrix that `linear`, `embedding` and `matmul`, on its right side, alone will read: then the CPU lays it out in
   * panels, as they like it best, and other ops refuse it. It is read and written row by row all the same. Default: whether it
   * is q8_0.
   */
  readonly panels?: boolean;
}

/** A number, a list of numbers, or lists of lists, as long as each other, as deep as one likes. */
export type NestedNumbers = number | ArrayLike<number> | readonly NestedNumbers[];

const isList = (values: NestedNumbers): values is Exclude<NestedNumbers, number> =>
  typeof values === "object" && values !== null;

/**
 * Numbers row by row, and the shape of their nesting.
 *
 * @param op the function that they were given to, for messages
 * @param shape the shape that they have to have; then a flat list will do
 * @throws {ShapeError} when lists side by side differ in length or depth, or there are more or fewer numbers than places
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

/** @throws {ShapeError} when a size is not a whole number above 0 */
export function checkShape(shape: readonly number[]): void {
  for (const size of shape) {
    if (Number.isInteger(size) && size > 0) continue;
    throw new ShapeError(`tensor: [${shape}] is not a valid shape; sizes are whole numbers above 0`);
  }
}

/** What a tensor is stored in, where that keeps it from being trained: a type, or panels. */
export const untrainable = ({ dtype, panels }: Storage): string | undefined =>
  dtype !== "f32" ? dtype : panels ? "panels" : undefined;

function checkTrainable(storage: Storage): void {
  const stored = untrainable(storage);
  if (stored) throw new TypeError(`tensor: ${stored} can have no gradient`);
}

/**
 * Numbers in a shape, on a device, as `torch.Tensor`: f32 or i32, and weights also bf16, contiguous, row by row. Ops make new ones; nothing is
 * computed in place but by an optimizer. A tensor lives until its scope ends or it is disposed of.
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
  /** Of a leaf that requires one, after backward: in its shape, added up over backwards, aliased by no other tensor. */
  grad: Tensor | undefined;
  /** @internal The operation that made it, where a gradient is needed. */
  node: Node | undefined;
  /** The scope that will free it. */
  scope: Scope | undefined;
  /** The size of each axis; [] for a single number. */
  readonly shape: readonly number[];
  #leaf: boolean;
  #storage: Storage;
  #owned = true;
  /** How many nodes of the tape need its contents. */
  #saved = 0;

  /**
   * A shape over a storage that is there already; {@linkcode Device.tensor} and {@linkcode Device.empty} make both.
   *
   * @throws {ShapeError} when the shape has not as many places as the storage, or a size is no whole number above 0
   * @throws {TypeError} when an i32 or a bf16 requires a gradient
   */
  constructor(storage: Storage, shape: readonly number[], { requiresGrad = false }: TensorOptions = {}) {
    if (sizeOf(shape) !== storage.length) {
      throw new ShapeError(`tensor: [${shape}] over a storage of ${storage.length}`);
    }
    checkShape(shape);
    if (requiresGrad) checkTrainable(storage);
    this.shape = [...shape]; // it has been checked: nobody is to change it
    this.#leaf = requiresGrad;
    this.#storage = storage;
    storage.block.hold();
    storage.device.track(this);
  }

  /** Where its elements are; throws {@linkcode DeviceError} when the tensor has been freed. */
  get storage(): Storage {
    if (!this.#owned && this.#saved === 0) {
      const op = this.device.op ?? "anything", why = "its scope ended; keep() it, or use it before";
      throw new DeviceError(`Cannot apply ${op} to [${this.shape}]: it has been freed, for ${why}`);
    }
    return this.#storage;
  }
  /** Where it is. */ get device(): Device {
    return this.#storage.device;
  }
  /** What it holds; bf16 are weights for `linear`, `embedding` and the right side of `matmul`, or a cache; no other op takes them. */
  get dtype(): StorageType {
    return this.#storage.dtype;
  }
  /** Number of elements. */
  get size(): number {
    return this.#storage.length;
  }
  /**
   * Whether backward reaches it: a leaf made so, or the result of an op on one that does. Of a leaf it can be set, as
   * `torch.Tensor.requires_grad`; a gradient that is there stays.
   *
   * @throws {TypeError} when it is set on the result of an op, or to true on an i32 or a bf16
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
  /** Whether its scope has ended, or it has been disposed of. */
  get freed(): boolean {
    return !this.#owned;
  }

  /**
   * The same storage in another shape, outside the tape: what ops hand to kernels of fixed rank. It requires no gradient
   * (PyTorch's `detach().view()`); `reshape` is what gradients pass through.
   *
   * @throws {ShapeError} when the shape has not as many places
   * @throws {DeviceError} when the tensor has been freed
   */
  alias(shape: readonly number[]): Tensor {
    return new Tensor(this.storage, shape);
  }
  /**
   * A copy of the elements, row by row, when all that was launched before is done.
   *
   * @returns Float32Array (of bf16 too) or Int32Array; of f32 and bf16 on the reference device, Float64Array
   * @throws {DeviceError} when the tensor has been freed
   */
  data(): Promise<NumberArray> {
    return this.device.read(this.storage);
  }
  /**
   * Puts values from the host in place of those that are there, as `torch.Tensor.copy_`: the next batch, before a program that
   * reads it is replayed.
   *
   * @param values nested as the tensor is, or flat, row by row
   * @throws {ShapeError} when there are more or fewer values than elements, or they are nested in another shape
   * @throws {DeviceError} when the tensor has been freed, one is no 32-bit integer where the tensor is i32, or within a capture
   */
  set(values: NestedNumbers): void {
    this.device.write(this.storage, flatten("set", values, this.shape).numbers);
  }
  /**
   * The only element, as `torch.Tensor.item`.
   *
   * @throws {ShapeError} when there are more
   */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new ShapeError(`Cannot apply item to [${this.shape}]: ${this.size} elements, expected one`);
    }
    return (await this.data())[0];
  }
  /**
   * Adds the gradient of this tensor to `grad` of every leaf that requires one, as `torch.Tensor.backward`, and consumes the
   * tape on the way.
   *
   * @param seed f32, in the shape of this tensor: the gradient to begin with; where it has one element, by default 1
   * @throws {ShapeError} when there are more elements and no seed, or the seed has another shape
   * @throws {TypeError} when no gradient is required, a part of the tape was consumed by an earlier backward, or what it
   *   saved was changed in place since
   */
  backward(seed?: Tensor): void {
    backward(this, seed);
  }

  /** Such as `Tensor [2, 3] f32 on cpu`; consoles show the same. */
  toString(): string {
    return `Tensor [${this.shape.join(", ")}] ${this.dtype} on ${this.device.name}${this.freed ? ", freed" : ""}`;
  }
  /** As toString(). */ [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
  /** As toString(). */ [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
  /** Frees it now; what the tape still needs goes when backward has consumed it. Without effect the second time. */
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
  /** Called by the tape: its contents are needed, or no longer. */
  save(by: 1 | -1): void {
    this.#saved += by;
    if (by < 0 && this.#saved === 0 && !this.#owned) this.#storage.block.release();
  }
  /** Moves a leaf to another storage of the same length, contents and all: how an optimizer lays parameters side by side. */
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
