import { advance } from "../../kernels/tokens/kernel.ts";
import type { Device } from "../engine/device.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * Keys and values of the tokens that a model has seen, so that the next token costs one token's work.
 *
 * The position is on the device, and moves on there: a launch of the next token is the same as that of the last.
 */
export class KeyValueCache implements Disposable {
  /** One for each layer: (B, block size, 2, heads, width). */
  readonly layers: readonly Tensor[];
  /** (1) i32: how many tokens are there. */
  readonly position: Tensor;
  #length = 0;

  /** As `GPT.createCache` makes it: `length` tokens for each of `batch` sequences. */
  constructor(
    device: Device,
    { batch, layers, length, heads, width }: Record<"batch" | "layers" | "length" | "heads" | "width", number>,
  ) {
    using scope = device.scope();
    this.layers = Array.from({ length: layers }, () => device.empty([batch, length, 2, heads, width]));
    this.position = device.tensor([0], [1], { dtype: "i32" });
    scope.keepAll();
  }
  /** How many tokens it holds; those that a captured program has added are not counted. */
  get length(): number {
    return this.#length;
  }
  /** Called by the model after a forward pass. */
  advance(tokens: number): void {
    launch(advance, { counter: this.position }, { by: tokens });
    this.#length += tokens;
  }
  /** Forgets every token. */
  reset(): void {
    this.position.device.write(this.position.storage, [0]);
    this.#length = 0;
  }
  /** Frees it. */
  dispose(): void {
    for (const tensor of [...this.layers, this.position]) tensor.dispose();
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}
