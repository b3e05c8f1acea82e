import { advance } from "../../kernels/tokens/kernel.ts";
import type { Device } from "../engine/device.ts";
import { launch } from "../engine/launch.ts";
import type { Places } from "../ops/cached_attention.ts";
import type { Tensor } from "../engine/tensor.ts";

/** How keys and values are stored: exactly, or rounded to the nearest in half the memory. */
export type CacheType = "f32" | "bf16";

/**
 * Keys and values of the tokens that a model has seen, so that the next token costs one token's work: a slot for each text.
 *
 * Used by itself, it holds as many texts of equal length as it has slots. The positions are on the device, and move on there:
 * a launch of the next tokens is the same as that of the last. A caller whose texts have lengths of their own (generate/rows.ts)
 * tells the model each token's slot and position.
 */
export class KeyValueCache implements Disposable {
  /** One for each layer: (slots, heads, block size, 2, width). */
  readonly layers: readonly Tensor[];
  /** Where the next token of each slot goes; both (slots). */
  readonly next: Places;
  #length = 0;

  /** As `GPT.createCache` makes it: `length` tokens in each of `slots`. */
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
  /** How many tokens each slot holds; those that a captured program has added are not counted. */
  get length(): number {
    return this.#length;
  }
  /** Where the next `tokens` of every slot go: (slots, tokens) each. The tensors of several are of the scope around the call. */
  places(tokens: number): Places {
    if (tokens === 1) return this.next;
    const { slot: { device, size: slots } } = this.next, first = this.#length;
    const make = (number: (slot: number, t: number) => number) =>
      device.tensor(Int32Array.from({ length: slots * tokens }, (_, i) => number(Math.floor(i / tokens), i % tokens)));
    return { slot: make((slot) => slot), position: make((_, t) => first + t) };
  }
  /** Called by the model after a forward pass of so many tokens for each slot. */
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
  /** Frees it. */
  dispose(): void {
    for (const tensor of [...this.layers, this.next.slot, this.next.position]) tensor.dispose();
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}
