/** A device that stores and computes nothing. It measures how much memory some code would need on another device. */
import type { NumberArray, StorageType } from "../kernel.ts";
import { type Command, Device, type Launch, type Storage } from "../engine/device.ts";

/**
 * Imitates another device without its computations. Storages are allocated and freed by the same code as on that device,
 * so {@linkcode Device.memory} reports the bytes that would be in use there.
 */
export class DryDevice extends Device {
  override readonly name: string;
  override readonly readsAtOnce: boolean;
  /** Bytes of the largest storage. */
  largest = 0;
  /** Number of multiplications and additions so far, in kernels that count them. */
  flops = 0;

  /** @param of the device to imitate; nothing is computed or allocated on it */
  constructor(readonly of: Device) {
    super();
    this.name = of.name;
    this.readsAtOnce = of.readsAtOnce;
  }
  override bytesOf(dtype: StorageType): number {
    return this.of.bytesOf(dtype);
  }
  override get panelWidth(): number {
    return this.of.panelWidth;
  }
  protected override take(length: number, dtype: StorageType): void {
    this.largest = Math.max(this.largest, length * this.bytesOf(dtype));
  }
  override fill(): void {}
  override write(storage: Storage, values: ArrayLike<number>): void {
    this.checkWrite(storage, values);
  }
  /** Returns zeros. */
  protected override fetch({ length, dtype }: Storage): Promise<NumberArray> {
    return Promise.resolve(dtype === "i32" ? new Int32Array(length) : new Float32Array(length));
  }
  override parts(launch: Launch): ReturnType<Device["parts"]> {
    return this.of.parts(launch);
  }
  override kept(launch: Launch): number {
    return this.of.kept(launch);
  }
  protected override prepare({ kernel, sizes }: Launch): Command {
    const flops = kernel.flops?.(sizes) ?? 0;
    return () => void (this.flops += flops);
  }
}
