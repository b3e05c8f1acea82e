import type { Tensor } from "./tensor.ts";

/**
 * Frees the tensors that were made in it. Scopes nest; a new tensor belongs to the innermost open scope. A scope must
 * end before its code awaits anything, because it would also free tensors that other code makes meanwhile; if it does
 * not, its end throws a TypeError.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { add, mul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), x = device.tensor([1, 2], [2]);
 * function squareAndSelf() {
 *   using scope = device.scope();
 *   return scope.keep(add(mul(x, x), x)); // the product is freed here, the sum is not
 * }
 * assertEquals([...await squareAndSelf().data()], [2, 6]);
 * assertEquals(device.memory().tensors, 2); // x and the sum
 * device.close();
 * ```
 */
export class Scope implements Disposable {
  #tensors: Tensor[] = [];
  #open: Scope[];
  #awaited = false;

  /**
   * @param open the device's open scopes; the last one is the parent of this scope
   * @param op name of the op that opens the scope, for messages
   */
  /** @internal */ constructor(open: Scope[], readonly op?: string) {
    this.#open = open;
    // A microtask runs only after the code that opened the scope has returned, or when it awaits.
    if (open.length === 0) queueMicrotask(() => this.#awaited = this.#open.includes(this));
  }

  /** Called by the device when a tensor is made. */
  adopt(tensor: Tensor): void {
    tensor.scope = this;
    this.#tensors.push(tensor);
  }
  /**
   * Moves a tensor of this scope to the enclosing scope; if there is none, the caller has to dispose of it. A tensor of
   * another scope is not changed.
   *
   * @returns the tensor
   */
  keep<T extends Tensor | undefined>(tensor: T): T {
    if (tensor?.scope !== this) return tensor;
    const parent = this.#open[this.#open.indexOf(this) - 1];
    if (parent) parent.adopt(tensor);
    else tensor.scope = undefined;
    return tensor;
  }

  /**
   * Keeps all tensors of this scope. A constructor calls it last: if the constructor throws before, the scope frees the
   * tensors.
   */
  keepAll(): void {
    for (const tensor of this.#tensors) this.keep(tensor);
  }

  /**
   * Ends the scope and frees its tensors; `using` calls it. A second call does nothing.
   *
   * @throws {TypeError} after freeing, when code in the scope awaited, or a scope inside it is still open
   */
  [Symbol.dispose](): void {
    const depth = this.#open.indexOf(this);
    if (depth < 0) return;
    const inner = this.#open.splice(depth);
    for (const scope of inner.reverse()) {
      for (const tensor of scope.#tensors) if (tensor.scope === scope) tensor.dispose();
      scope.#tensors = [];
    }
    if (this.#awaited) {
      throw new TypeError("scope: it was open across an await; end it before, and keep() the tensors used later");
    }
    if (inner.length > 1) throw new TypeError("scope: it ended before a scope inside it");
  }
}
