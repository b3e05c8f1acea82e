/**
 * The memory of tensors: blocks of a device's memory, storages (parts of blocks), and what is known about their
 * contents.
 */
import { f32ToBf16 } from "../half.ts";
import { f32ToQ8, Q8_0 } from "./q8_0.ts";
import { DeviceError } from "../errors.ts";
import type { Panels, StorageType } from "../kernel.ts";
import type { Device } from "./device.ts";

/**
 * Counts changes in this process that can make a captured program out of date: a parameter's storage, whether it is
 * trained, a module's mode. Code that makes such a change increments the counter. Programs are checked only if the
 * counter has changed (nn/captured.ts).
 */
export const layout = { changes: 0 };

/** Free blocks, by type and capacity. */
export type Pool = Map<string, Block[]>;

/** A piece of a device's memory with a reference count. When the count reaches 0, the block returns to its pool. */
export class Block {
  #holders = 0;
  /** The device's pool, or the pool of the program that owns the block. */
  pool: Pool | undefined;
  /** Number of writes. Backward compares it to detect that a saved tensor was overwritten. */
  version = 0;
  /** Range of the integers, for checks in ops; undefined if a kernel has written to the block since the host did. */
  bounds: Bounds | undefined;
  /**
   * Copies of the block's matrices in panels, by the matrix's offset (made by ops/linear.ts). Any write to the block
   * drops them.
   */
  laid: Map<number, Storage> | undefined;
  /** Whether this block is a copy in panels that is out of date. A captured program may still hold it. */
  dropped = false;

  constructor(
    readonly device: Device,
    readonly dtype: StorageType,
    readonly capacity: number,
    readonly memory: unknown,
    /** The layout, if the block holds a matrix in panels instead of row by row. */
    readonly panels?: Panels,
  ) {}

  get holders(): number {
    return this.#holders;
  }
  hold(): void {
    this.#holders++;
  }
  release(): void {
    if (--this.#holders > 0) return;
    this.#dropLaid();
    this.device.recycle(this);
  }
  /** Called after each write. */
  changed(): void {
    this.version++;
    this.#dropLaid();
    this.bounds = undefined;
  }
  #dropLaid(): void {
    if (!this.laid) return;
    layout.changes++;
    for (const { block } of this.laid.values()) {
      block.dropped = true;
      block.release();
    }
    this.laid = undefined;
  }
}

/** The range of a storage's integers. */
export interface Bounds {
  readonly least: number;
  readonly greatest: number;
  /**
   * The second smallest and second largest value, or ±Infinity if all values are equal: with them, cross-entropy can
   * check the range apart from one value that it ignores, such as −1.
   */
  readonly next: readonly [number, number];
}

/**
 * The memory of a tensor: a part of a block, usually all of it. Parameters that are trained are slices of the
 * optimizer's block.
 */
export class Storage {
  /** Makes a storage of a part of a block. @throws {DeviceError} when it is not inside; kernels rely on this check */
  constructor(/** @internal */ readonly block: Block, readonly length: number, readonly offset = 0) {
    const fits = Number.isInteger(length) && Number.isInteger(offset) && length >= 1 && offset >= 0;
    if (fits && offset + length <= block.capacity) return;
    throw new DeviceError(`storage: ${length} elements from ${offset} on are not inside a block of ${block.capacity}`);
  }

  /** Type of the elements. */ get dtype(): StorageType {
    return this.block.dtype;
  }
  /** @internal The layout of a matrix in panels; undefined if stored row by row. */ get panels(): Panels | undefined {
    return this.block.panels;
  }
  /** The device that holds the block. */ get device(): Device {
    return this.block.device;
  }
  /** Whether two storages have elements in common. */ overlaps({ block, offset, length }: Storage): boolean {
    return block === this.block && offset < this.offset + this.length && this.offset < offset + length;
  }
}

/** The bits to write into a bf16 storage: a Uint16Array as it is, other numbers rounded to the nearest. */
export const bitsOf = (values: ArrayLike<number>): Uint16Array =>
  values instanceof Uint16Array
    ? values
    : f32ToBf16(values instanceof Float32Array ? values : Float32Array.from(values));

/** The blocks to write into a q8_0 storage: a Uint8Array as it is, other numbers quantised (q8_0.ts). */
export function blocksOf(values: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  if (values instanceof Uint8Array) return values as Uint8Array<ArrayBuffer>;
  const blocks = f32ToQ8(values instanceof Float32Array ? values : Float32Array.from(values));
  const scales = new Float16Array(blocks.buffer);
  for (let at = 0; at < scales.length; at += Q8_0.bytes / 2) {
    if (scales[at] < Infinity) continue;
    throw new DeviceError("write: q8_0 cannot store infinity, NaN, or numbers beyond 127 · 65504");
  }
  return blocks;
}

/** Finds the range of integers. @throws {DeviceError} when a value is not a 32-bit integer */
export function boundsOf(values: ArrayLike<number>): Bounds {
  let least = Infinity, above = Infinity, greatest = -Infinity, below = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if ((value | 0) !== value && value >>> 0 !== value) {
      throw new DeviceError(`write: ${value} is not a 32-bit integer`);
    }
    if (value < least) [above, least] = [least, value];
    else if (value > least && value < above) above = value;
    if (value > greatest) [below, greatest] = [greatest, value];
    else if (value < greatest && value > below) below = value;
  }
  return { least, greatest, next: [above, below] };
}
