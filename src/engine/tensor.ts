/** A tensor: a shape over a device's storage, contiguous, and its place on the tape. */
import { backward, type Node, release } from "./autograd.ts";
import type { Device, Storage } from "./device.ts";
import type { Scope } from "./scope.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import type { NumberArray, StorageType } from "../kernel.ts";

export interface TensorOptions {
  /** Whether backward should leave a gradient in {@linkcode Tensor.grad}. */
  readonly requiresGrad?: boolean;
}

/**
 * How often something has changed in this process that a captured program may stand on: where a parameter lies, whether it is
 * trained, a module's mode. Whoever changes such a thing counts it here, and a program is compared only after a count
 * (nn/captured.ts).
 */
export const layout = { changes: 0 };

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** @throws {ShapeError} when it is none */
export function checkShape(shape: readonly number[]): void {
  for (const size of shape) {
    if (Number.isInteger(size) && size > 0) continue;
    throw new ShapeError(`tensor: [${shape}] is no shape; sizes are whole numbers above 0`);
  }
}

function checkTrainable({ dtype }: Storage): void {
  if (dtype !== "f32") throw new TypeError(`tensor: ${dtype} can have no gradient`);
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
export class Tensor {
  /** Of a leaf that requires one, after backward: in its shape, added up over backwards, aliased by no other tensor. */
  grad: Tensor | undefined;
  /** The operation that made it, where a gradient is needed. */
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
    storage.device.track(this, true);
  }

  /** @throws {DeviceError} when the tensor has been freed */
  get storage(): Storage {
    if (!this.#owned && this.#saved === 0) {
      throw new DeviceError(`tensor [${this.shape}] has been freed: its scope ended; keep() it, or use it before`);
    }
    return this.#storage;
  }
  get device(): Device {
    return this.#storage.device;
  }
  /** What it holds; bf16 are weights for `linear`, `embedding` and the right side of `matmul`; no other op takes them. */
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
   * The only element, as `torch.Tensor.item`.
   *
   * @throws {ShapeError} when there are more
   */
  async item(): Promise<number> {
    if (this.size !== 1) throw new ShapeError(`item: [${this.shape}] has ${this.size} elements, not one`);
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

  /** Frees it now; what the tape still needs goes when backward has consumed it. Without effect the second time. */
  dispose(): void {
    if (!this.#owned) return;
    this.#owned = false;
    this.scope = undefined;
    this.device.track(this, false);
    if (this.#saved === 0) this.#storage.block.release();
    if (this.node) release(this.node);
  }
  /** Called by the tape: its contents are needed, or no longer. */
  save(by: 1 | -1): void {
    this.#saved += by;
    if (by < 0 && this.#saved === 0 && !this.#owned) this.#storage.block.release();
  }
  /** Moves a leaf to another storage of the same length, contents and all: how an optimizer lays parameters side by side. */
  rebind(storage: Storage): void {
    if (storage.length !== this.size || this.node) throw new ShapeError("rebind: not a leaf, or another length");
    storage.block.hold();
    this.#storage.block.release();
    this.#storage = storage;
    layout.changes++;
  }
}
