/**
 * Reverse-mode differentiation over a tape (Linnainmaa 1970; the shape of micrograd and PyTorch).
 *
 * A leaf's gradient stands in `tensor.grad`; that of an intermediate exists only until the walk has consumed it.
 */
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "./launch.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Makes gradients of an op's inputs out of that of its output. `into[i]` is there when input i already has a gradient that
 * is its own: a rule whose kernel adds passes it as the output and returns it; for others the walk adds. A rule may return
 * `dout` itself, and leaves out what `requiresGrad` does not ask for.
 */
type Rule = (dout: Tensor, into: readonly (Tensor | undefined)[]) => readonly (Tensor | undefined)[];

/** One operation on the tape. */
export interface Node {
  readonly op: string;
  readonly order: number;
  readonly output: Tensor;
  inputs: readonly (Tensor | undefined)[];
  /** What the rule reads, with its version at the time: the tape keeps it alive. */
  saved: readonly { readonly tensor: Tensor; readonly version: number }[];
  /** Gone once consumed. */
  rule: Rule | undefined;
  /** How many nodes take its output as an input. */
  users: number;
}

let recorded = 0, recording = true;

/**
 * Runs `body` without recording its ops, as `torch.no_grad`: what it makes requires no gradient, and holds no memory for one.
 *
 * @returns what `body` returns
 * @throws {TypeError} when `body` is asynchronous, for other code would run in its shadow
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, noGrad } from "@nanogpt/ts";
 * import { neg } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), x = device.tensor([1], [1], { requiresGrad: true });
 * assertEquals([neg(x).requiresGrad, noGrad(() => neg(x)).requiresGrad], [true, false]);
 * device.close();
 * ```
 */
export function noGrad<T>(body: () => T): T {
  const before = recording;
  recording = false;
  try {
    const result = body();
    if (result instanceof Promise) throw new TypeError("noGrad: the body must not be asynchronous");
    return result;
  } finally {
    recording = before;
  }
}

/**
 * Puts `output` on the tape if any input needs a gradient; an optional input that is missing stays in its place.
 *
 * @param saved every tensor that the rule reads besides `dout` and `into`
 */
export function record(
  op: string,
  output: Tensor,
  inputs: Node["inputs"],
  saved: readonly (Tensor | undefined)[],
  rule: Rule,
): Tensor {
  if (!recording || !inputs.some((input) => input?.requiresGrad)) return output;
  const versions = saved.filter((tensor) => tensor !== undefined).map((tensor) => {
    tensor.save(1);
    return { tensor, version: tensor.storage.block.version };
  });
  for (const input of inputs) if (input?.node) input.node.users++;
  output.node = { op, order: recorded++, output, inputs, saved: versions, rule, users: 0 };
  return output;
}

/** Takes a node from the tape when nothing can reach it any more: its output is freed, and no node uses it. */
export function release(node: Node): void {
  const waiting = [node];
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    if (!node.rule || node.users > 0 || !node.output.freed) continue;
    for (const input of node.inputs) if (input?.node && --input.node.users === 0) waiting.push(input.node);
    consume(node);
  }
}

function consume(node: Node): void {
  for (const { tensor } of node.saved) tensor.save(-1);
  node.saved = [];
  node.inputs = [];
  node.rule = undefined;
}

/** Walks the tape from `root`, latest first; a node is released as soon as it is consumed. */
export function backward(root: Tensor, seed?: Tensor): void {
  const { device } = root;
  const refuse = (Type: new (message: string) => Error, why: string) =>
    new Type(`Cannot apply backward to [${root.shape}]: ${why}`);
  if (!root.requiresGrad) throw refuse(TypeError, "it requires no gradient");
  if (!seed && root.size !== 1) throw refuse(ShapeError, `with ${root.size} elements it needs a seed`);
  if (seed && `${seed.shape}` !== `${root.shape}`) {
    throw refuse(ShapeError, `the seed is [${seed.shape}]`);
  }
  const nodes = latestFirst(root);
  /** Gradients of intermediates, each in no scope: freed when consumed. */
  const gradients = new Map<Tensor, Tensor>();
  const get = (tensor: Tensor) => tensor.node ? gradients.get(tensor) : tensor.grad;
  const set = (tensor: Tensor, gradient: Tensor) =>
    tensor.node ? gradients.set(tensor, gradient) : tensor.grad = gradient;
  // Rules pass `dout` through, so gradients share storages: only what is held alone may be added to in place.
  const alone = ({ storage }: Tensor) => storage.block.holders === 1;
  const own = (tensor: Tensor) => {
    const gradient = get(tensor);
    return gradient && (!tensor.node || alone(gradient)) ? gradient : undefined;
  };

  /** Takes over `gradient`. */
  const give = (tensor: Tensor, gradient: Tensor) => {
    const sum = own(tensor) ?? (get(tensor) && copy(get(tensor)!));
    if (sum) {
      add(gradient, sum);
      gradient.dispose();
      if (sum !== get(tensor)) get(tensor)!.dispose();
    }
    set(tensor, sum ?? (tensor.node || alone(gradient) ? gradient : replace(gradient)));
  };
  const replace = (gradient: Tensor) => {
    const own = copy(gradient); // a leaf keeps its gradient, so it shares with nobody
    gradient.dispose();
    return own;
  };
  const outside = <T extends Tensor | undefined>(tensor: T): T => {
    if (tensor) tensor.scope = undefined;
    return tensor;
  };
  const copy = (tensor: Tensor) => outside(add(tensor));

  const walk = () => {
    using _ = device.scope("backward");
    give(root, outside(seed ? seed.alias(seed.shape) : device.tensor([1], root.shape)));
    for (const node of nodes) {
      const { op, inputs, saved, rule, output } = node, dout = gradients.get(output);
      if (dout) {
        for (const { tensor, version } of saved) {
          if (tensor.storage.block.version === version) continue;
          throw refuse(TypeError, `a tensor [${tensor.shape}] that ${op} had saved was changed in place since`);
        }
        using scope = device.scope();
        const into = inputs.map((input, i) =>
          input?.requiresGrad && inputs.indexOf(input) === i ? own(input) : undefined
        );
        const given = rule!(dout, into).map((dinp, i) => {
          const input = inputs[i];
          if (!dinp || !input?.requiresGrad || dinp.storage === into[i]?.storage) return;
          return { input, dinp: outside(dinp.scope === scope ? dinp : dinp.alias(input.shape)) };
        });
        scope[Symbol.dispose](); // the rule's own tensors go first, so that what is left is known to be alone
        gradients.delete(output);
        dout.dispose();
        for (const one of given) if (one) give(one.input, one.dinp);
      }
      for (const input of inputs) if (input?.node) input.node.users--;
      consume(node);
    }
  };
  try {
    noGrad(walk);
  } finally { // some are left only where a rule threw
    for (const gradient of gradients.values()) gradient.dispose();
  }
}

/** The nodes that `root` depends on. */
function latestFirst(root: Tensor): Node[] {
  const nodes = new Set(root.node && [root.node]);
  for (const { op, inputs, rule } of nodes) { // reaches what is added on the way
    if (!rule) {
      throw new TypeError(
        `Cannot apply backward to [${root.shape}]: ${op} was consumed by an earlier backward; run the forward again`,
      );
    }
    for (const input of inputs) if (input?.node) nodes.add(input.node);
  }
  return [...nodes].sort((a, b) => b.order - a.order);
}

/** sum += x; a copy of x where no sum is given. */
function add(x: Tensor, sum?: Tensor): Tensor {
  using scope = x.device.scope();
  const flat = (tensor: Tensor) => tensor.alias([tensor.size]);
  return scope.keep(launch(accumulate, { x: flat(x), sum: sum && flat(sum) }).sum.alias(x.shape));
}
