import type { Tensor } from "./tensor.ts";

/**
 * Frees what was made inside it. Scopes nest; the innermost owns a new tensor. A scope must end before its code awaits
 * anything, for other code would run inside it: its end throws a TypeError then.
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
   * @param open the device's open scopes, this one's parent the last of them
   * @param op the op that opens it, for messages
   */
  /** @internal */ constructor(open: Scope[], readonly op?: string) {
    this.#open = open;
    // A microtask runs only when the code that opened the scope has returned or awaits.
    if (open.length === 0) queueMicrotask(() => this.#awaited = this.#open.includes(this));
  }

  /** Called by the device when a tensor is made. */
  adopt(tensor: Tensor): void {
    tensor.scope = this;
    this.#tensors.push(tensor);
  }
  /**
   * Lets a tensor of this scope out, to the enclosing scope or, where there is none, to the caller. Others stay as they are.
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

  /** Lets everything out: the end of a constructor that has not thrown, and so leaves nothing behind where it throws. */
  keepAll(): void {
    for (const tensor of this.#tensors) this.keep(tensor);
  }

  /**
   * Ends the scope: `using` calls it. Without effect the second time.
   *
   * @throws {TypeError} when code awaited inside the scope, or a scope inside it is still open; what was made is freed first
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
      throw new TypeError("scope: it was open across an await; end it before, and keep() what is needed");
    }
    if (inner.length > 1) throw new TypeError("scope: ended before the scopes inside it");
  }
}
