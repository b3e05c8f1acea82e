/**
 * Capture and replay: the launches of a step as a flat list, which runs again without the code that made it.
 *
 * The blocks that the step took belong to the program, as those of a CUDA graph do: nothing else is laid into them while the
 * program lives, so that each replay finds and leaves what the first pass did.
 */
import { DeviceError } from "../errors.ts";
import type { Device, Launch } from "./device.ts";
import type { Block, Pool } from "./storage.ts";

/** A launch made ready: all that it needs has been looked up. */
export type Command = () => void;

/** What is collected while a body is being captured. */
export class Capture {
  readonly commands: Command[] = [];
  /** Where blocks wait that were freed within the body, for the rest of the body. */
  readonly pool: Pool = new Map();
  /** Taken within the body. */
  readonly owned: Set<Block> = new Set();
  /** There before the body, or made from values of the host: held, so that nobody else gets them. */
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
  /** Gives everything back to `pool`, now or when its holders let go. */
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
 * A captured step, made by {@linkcode Device.capture}.
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
 * assertEquals(await program.result.item(), 16); // the same tensor, computed anew
 * device.close();
 * ```
 */
export class Program<T = unknown> implements Disposable {
  #capture: Capture | undefined;
  #free: (capture: Capture) => void;
  readonly #visible: readonly Block[];

  /** @param free gives the capture's blocks back */
  /** @internal */
  constructor(readonly device: Device, capture: Capture, readonly result: T, free: (capture: Capture) => void) {
    this.#capture = capture;
    this.#free = free;
    this.#visible = [...capture.written].filter((block) => !capture.owned.has(block) || block.holders > 0);
  }

  /** How many launches a replay is. */
  get launches(): number {
    return this.#capture?.commands.length ?? 0;
  }

  /** Whether it reads matrices in panels that are copies of what has changed since. */
  get outdated(): boolean {
    return !!this.#capture && [...this.#capture.held].some(({ dropped }) => dropped);
  }

  /**
   * Runs all launches again, in order, on the same storages: tensors from outside are read and written anew, and `result`
   * is overwritten. It allocates nothing.
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
   * Runs `body` with the memory that lies idle between replays, so that an evaluation between two steps takes none of its
   * own. All that is made inside has to be freed before the next replay, which overwrites it.
   *
   * @returns what `body` returns
   */
  lend<T>(body: () => T): T {
    return this.#capture ? this.device.lend(this.#capture.pool, body) : body();
  }

  /** Gives its memory back. Tensors in `result` stay until they are disposed of. */
  dispose(): void {
    if (this.#capture) this.#free(this.#capture);
    this.#capture = undefined;
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}
