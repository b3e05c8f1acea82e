/**
 * Capture and replay: records the launches of a step as a flat list, which can run again without the code of the step.
 *
 * The memory blocks that the step allocates belong to the program, as with a CUDA graph. Nothing else is stored in them
 * while the program lives, so every replay can use the same addresses.
 */
import { DeviceError } from "../errors.ts";
import type { Device, Launch } from "./device.ts";
import type { Block, Pool } from "./storage.ts";

/** A prepared launch: all arguments have been looked up. */
export type Command = () => void;

/** The launches and blocks of a body that is being captured. */
export class Capture {
  readonly commands: Command[] = [];
  /** Blocks freed within the body, for reuse in the rest of the body. */
  readonly pool: Pool = new Map();
  /** Blocks allocated within the body. */
  readonly owned: Set<Block> = new Set();
  /**
   * Blocks from before the body, or with values from the host. They are held, so they are not reused while the program
   * lives.
   */
  readonly held: Set<Block> = new Set();
  readonly written: Set<Block> = new Set();

  own(block: Block): void {
    block.pool = this.pool;
    this.owned.add(block);
  }
  hold(block: Block): void {
    if (this.owned.has(block) || this.held.has(block)) return;
    block.hold();
    this.held.add(block);
  }
  add({ kernel, storages }: Launch, command: Command): void {
    this.commands.push(command);
    for (const { name, role } of kernel.operands) {
      if (!(name in storages)) continue;
      this.hold(storages[name].block);
      if (role !== "reads") this.written.add(storages[name].block);
    }
  }
  /** Returns all blocks to `pool`: at once, or when their last holder releases them. */
  release(pool: Pool): void {
    for (const block of this.owned) block.pool = pool;
    for (const [key, waiting] of this.pool) pool.set(key, [...pool.get(key) ?? [], ...waiting]);
    for (const block of this.held) block.release();
    this.pool.clear();
    this.owned.clear();
    this.held.clear();
  }
}

/**
 * The recorded launches of a step, made by {@linkcode Device.capture}.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { mul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), x = device.tensor([3], [1]);
 * using program = device.capture(() => mul(x, x));
 * assertEquals(await program.result.item(), 9);
 * device.write(x.storage, [4]);
 * program.replay();
 * assertEquals(await program.result.item(), 16); // the same tensor, computed again
 * device.close();
 * ```
 */
export class Program<T = unknown> implements Disposable {
  #capture: Capture | undefined;
  #free: (capture: Capture) => void;
  readonly #visible: readonly Block[];

  /** @param free returns the capture's blocks to the device's pool */
  /** @internal */
  constructor(readonly device: Device, capture: Capture, readonly result: T, free: (capture: Capture) => void) {
    this.#capture = capture;
    this.#free = free;
    this.#visible = [...capture.written].filter((block) => !capture.owned.has(block) || block.holders > 0);
  }

  /** Number of launches in a replay. */
  get launches(): number {
    return this.#capture?.commands.length ?? 0;
  }

  /** Whether the program reads copies of weights in panels that are out of date, because the weights have changed. */
  get outdated(): boolean {
    return !!this.#capture && [...this.#capture.held].some(({ dropped }) => dropped);
  }

  /**
   * Runs all launches again, in order, on the same storages. It reads and writes the tensors made before the capture,
   * overwrites `result`, and allocates nothing.
   *
   * @throws {DeviceError} when the program was disposed of, or its device is closed or lost
   */
  replay(): void {
    if (!this.#capture) throw new DeviceError("replay: the program has been disposed of");
    if (this.device.closed) throw new DeviceError(`replay: the device ${this.device.name} is closed`);
    for (const command of this.#capture.commands) command();
    for (const block of this.#visible) block.changed();
  }

  /**
   * Runs `body` with the program's memory, which is unused between replays: an evaluation between two steps then needs
   * no memory of its own. Free all tensors made in `body` before the next replay, which overwrites them.
   *
   * @returns what `body` returns
   */
  lend<T>(body: () => T): T {
    return this.#capture ? this.device.lend(this.#capture.pool, body) : body();
  }

  /** Frees the program's memory, except tensors in `result`, which live until they are disposed of. */
  dispose(): void {
    if (this.#capture) this.#free(this.#capture);
    this.#capture = undefined;
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}
