/** What tensors stand on: blocks of a device's memory, parts of them, and what is known of their contents. */
import { f32ToBf16 } from "../half.ts";
import { f32ToQ8, Q8_0 } from "./q8_0.ts";
import { DeviceError } from "../errors.ts";
import type { Panels, StorageType } from "../kernel.ts";
import type { Device } from "./device.ts";

/**
 * How often something has changed in this process that a captured program may stand on: where a parameter lies, whether it is
 * trained, a module's mode. Whoever changes such a thing counts it here, and a program is compared only after a count
 * (nn/captured.ts).
 */
export const layout = { changes: 0 };

/** Blocks that nobody holds, by type and capacity. */
export type Pool = Map<string, Block[]>;

/** Memory that was taken from the device; it goes back to its pool when nobody holds it. */
export class Block {
  #holders = 0;
  /** The device's, or that of the program that it belongs to. */
  pool: Pool | undefined;
  /** Counts writes, so that backward notices that what it had saved has been overwritten. */
  version = 0;
  /** What ops check of integers, where the host wrote them and no kernel has written since. */
  bounds: Bounds | undefined;
  /** Copies in panels of the matrices that lie here, by offset (ops/linear.ts); they go with the first change. */
  laid: Map<number, Storage> | undefined;
  /** Of such a copy: it has gone, though a program may hold it. */
  dropped = false;

  constructor(
    readonly device: Device,
    readonly dtype: StorageType,
    readonly capacity: number,
    readonly memory: unknown,
    /** How the matrix that is stored here lies, where not row by row. */
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
  /** A kernel has written it. */
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

/** How far integers range. */
export interface Bounds {
  readonly least: number;
  readonly greatest: number;
  /** The next above the least and the next below the greatest, for one value may be exempt; infinite where there is none. */
  readonly next: readonly [number, number];
}

/** A part of a block, which is what tensors stand on: usually all of it, for parameters a slice of the optimizer's. */
export class Storage {
  /** Throws {@linkcode DeviceError} when the block has no such part: what launches run on has passed here. */
  constructor(/** @internal */ readonly block: Block, readonly length: number, readonly offset = 0) {
    const fits = Number.isInteger(length) && Number.isInteger(offset) && length >= 1 && offset >= 0;
    if (fits && offset + length <= block.capacity) return;
    throw new DeviceError(`storage: ${length} elements from ${offset} on are no part of a block of ${block.capacity}`);
  }

  /** Of its elements. */ get dtype(): StorageType {
    return this.block.dtype;
  }
  /** @internal How its matrix lies, where not row by row. */ get panels(): Panels | undefined {
    return this.block.panels;
  }
  /** Where it is. */ get device(): Device {
    return this.block.device;
  }
  /** Whether both have elements in common. */ overlaps({ block, offset, length }: Storage): boolean {
    return block === this.block && offset < this.offset + this.length && this.offset < offset + length;
  }
}

/** What a storage of bf16 gets: a Uint16Array is bits already, other numbers are rounded to the nearest. */
export const bitsOf = (values: ArrayLike<number>): Uint16Array =>
  values instanceof Uint16Array
    ? values
    : f32ToBf16(values instanceof Float32Array ? values : Float32Array.from(values));

/** What a storage of q8_0 gets: a Uint8Array is blocks already (q8_0.ts), other numbers are quantised. */
export function blocksOf(values: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  if (values instanceof Uint8Array) return values as Uint8Array<ArrayBuffer>;
  const blocks = f32ToQ8(values instanceof Float32Array ? values : Float32Array.from(values));
  const scales = new Float16Array(blocks.buffer);
  for (let at = 0; at < scales.length; at += Q8_0.bytes / 2) {
    if (scales[at] < Infinity) continue;
    throw new DeviceError("write: q8_0 cannot store what is not finite, or beyond 127 · 65504");
  }
  return blocks;
}

/** @throws {DeviceError} when a value is no 32-bit integer */
export function boundsOf(values: ArrayLike<number>): Bounds {
  let least = Infinity, above = Infinity, greatest = -Infinity, below = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if ((value | 0) !== value && value >>> 0 !== value) throw new DeviceError(`write: ${value} is no 32-bit integer`);
    if (value < least) [above, least] = [least, value];
    else if (value > least && value < above) above = value;
    if (value > greatest) [below, greatest] = [greatest, value];
    else if (value < greatest && value > below) below = value;
  }
  return { least, greatest, next: [above, below] };
}
