import { advance } from "../../kernels/tokens/kernel.ts";
import type { Device } from "../engine/device.ts";
import { launch } from "../engine/launch.ts";
import type { Places } from "../ops/cached_attention.ts";
import type { Tensor } from "../engine/tensor.ts";

/** How keys and values are stored: `f32`, or rounded to the nearest `bf16`, which takes half the memory. */
export type CacheType = "f32" | "bf16";

/**
 * Attention's keys and values of the tokens that a model has seen. With them, a model computes only the new tokens of a
 * text instead of all its tokens again. Each text has a slot of its own.
 *
 * By default all slots advance together, so their texts have the same length. The positions are stored and advanced on
 * the device: each pass makes the same launches as the one before, which lets a captured program be replayed. A caller
 * with texts of different lengths (generate/rows.ts) passes each token's slot and position to the model.
 */
export class KeyValueCache implements Disposable {
  /** One tensor for each layer: (slots, heads, block size, 2, width), the key and the value of each token. */
  readonly layers: readonly Tensor[];
  /** Slot and position of the next token of each text; both (slots). */
  readonly next: Places;
  #length = 0;

  /** Makes an empty cache for `length` tokens in each of `slots`; `GPT.createCache` fills in a model's sizes. */
  constructor(
    device: Device,
    { slots, layers, length, heads, width, dtype }:
      & Record<"slots" | "layers" | "length" | "heads" | "width", number>
      & { readonly dtype?: CacheType },
  ) {
    using scope = device.scope();
    this.layers = Array.from({ length: layers }, () => device.empty([slots, heads, length, 2, width], { dtype }));
    const slot = device.tensor(Int32Array.from({ length: slots }, (_, slot) => slot));
    this.next = { slot, position: device.tensor(new Int32Array(slots)) };
    scope.keepAll();
  }
  /** Number of tokens in each slot; tokens that a captured program has added are not counted. */
  get length(): number {
    return this.#length;
  }
  /**
   * Slot and position of the next `tokens` tokens of every slot, (slots · tokens) each. For one token, these are the
   * tensors in `next`; for several, new tensors, which the scope around the call frees.
   */
  places(tokens: number): Places {
    if (tokens === 1) return this.next;
    const { slot: { device, size: slots } } = this.next, first = this.#length;
    const make = (number: (slot: number, t: number) => number) =>
      device.tensor(Int32Array.from({ length: slots * tokens }, (_, i) => number(Math.floor(i / tokens), i % tokens)));
    return { slot: make((slot) => slot), position: make((_, t) => first + t) };
  }
  /** Moves the position of every slot on by `tokens`. The model calls it after a forward pass. */
  advance(tokens: number): void {
    launch(advance, { counter: this.next.position }, { by: tokens });
    this.#length += tokens;
  }
  /** Forgets every token. */
  reset(): void {
    const { storage, device } = this.next.position;
    device.write(storage, new Int32Array(storage.length));
    this.#length = 0;
  }
  /** Frees the memory. */
  dispose(): void {
    for (const tensor of [...this.layers, this.next.slot, this.next.position]) tensor.dispose();
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}
