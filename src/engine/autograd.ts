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

/** Whether ops go on the tape: not within {@linkcode noGrad}. */
export const isRecording = (): boolean => recording;

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

/**
 * Walks the tape from `root`, latest first. Without the reuse of memory it would be:
 *
 *     gradients.set(root, seed)
 *     for each node that root depends on, the latest first:
 *       dinputs = node.rule(gradients.get(node.output))
 *       for each input: gradients.set(input, gradients.get(input) + its dinput)
 *
 * What else is here frees a node's tensors as soon as it is consumed, and has rules add to gradients in place.
 */
export function backward(root: Tensor, seed?: Tensor): void {
  if (!root.requiresGrad) throw new TypeError(refused(root, "it requires no gradient"));
  if (!seed && root.size !== 1) throw new ShapeError(refused(root, `with ${root.size} elements it needs a seed`));
  if (seed && `${seed.shape}` !== `${root.shape}`) throw new ShapeError(refused(root, `the seed is [${seed.shape}]`));
  const nodes = latestFirst(root), gradients = new Gradients();
  try {
    noGrad(() => {
      using _ = root.device.scope("backward");
      gradients.give(root, outside(seed ? seed.alias(seed.shape) : root.device.tensor([1], root.shape)));
      for (const node of nodes) {
        differentiate(root, node, gradients);
        for (const input of node.inputs) if (input?.node) input.node.users--;
        consume(node);
      }
    });
  } finally { // some are left only where a rule threw
    gradients.dispose();
  }
}

const refused = ({ shape }: Tensor, why: string) => `Cannot apply backward to [${shape}]: ${why}`;

/** Gives a node's inputs what its rule makes of its output's gradient, which is freed. */
function differentiate(root: Tensor, { op, inputs, saved, rule, output }: Node, gradients: Gradients): void {
  const dout = gradients.get(output);
  if (!dout) return;
  for (const { tensor, version } of saved) {
    if (tensor.storage.block.version === version) continue;
    throw new TypeError(refused(root, `a tensor [${tensor.shape}] that ${op} had saved was changed in place since`));
  }
  using scope = output.device.scope();
  const into = inputs.map((input, i) =>
    input?.requiresGrad && inputs.indexOf(input) === i ? gradients.own(input) : undefined
  );
  const given = rule!(dout, into).map((dinp, i) => {
    const input = inputs[i];
    if (!dinp || !input?.requiresGrad || dinp.storage === into[i]?.storage) return;
    return { input, dinp: outside(dinp.scope === scope ? dinp : dinp.alias(input.shape)) };
  });
  scope[Symbol.dispose](); // the rule's own tensors go first, so that what is left is known to be alone
  gradients.drop(output);
  for (const one of given) if (one) gradients.give(one.input, one.dinp);
}

/** What a walk has found so far. A leaf's gradient stands in the leaf, and is its own. */
class Gradients {
  /** Of intermediates, each in no scope. Rules pass `dout` through, so these may share storages. */
  #intermediate = new Map<Tensor, Tensor>();

  get(tensor: Tensor): Tensor | undefined {
    return tensor.node ? this.#intermediate.get(tensor) : tensor.grad;
  }
  /** The gradient, where it may be added to in place. */
  own(tensor: Tensor): Tensor | undefined {
    const gradient = this.get(tensor);
    return gradient && (!tensor.node || isAlone(gradient)) ? gradient : undefined;
  }
  /** Adds `gradient`, and takes it over. */
  give(tensor: Tensor, gradient: Tensor): void {
    const before = this.get(tensor);
    let sum = this.own(tensor) ?? (before && copy(before));
    if (sum) {
      add(gradient, sum);
      gradient.dispose();
      if (sum !== before) before!.dispose();
    } else if (tensor.node || isAlone(gradient)) sum = gradient;
    else {
      sum = copy(gradient); // a leaf keeps its gradient, so it shares with nobody
      gradient.dispose();
    }
    if (tensor.node) this.#intermediate.set(tensor, sum);
    else tensor.grad = sum;
  }
  /** Frees the gradient of an intermediate. */
  drop(tensor: Tensor): void {
    this.#intermediate.get(tensor)?.dispose();
    this.#intermediate.delete(tensor);
  }
  dispose(): void {
    for (const gradient of this.#intermediate.values()) gradient.dispose();
  }
}

const isAlone = ({ storage }: Tensor) => storage.block.holders === 1;
const copy = (tensor: Tensor) => outside(add(tensor));

/** The tensor, owned by no scope. */
function outside(tensor: Tensor): Tensor {
  tensor.scope = undefined;
  return tensor;
}

/** The nodes that `root` depends on. */
function latestFirst(root: Tensor): Node[] {
  const nodes = new Set(root.node && [root.node]);
  for (const { op, inputs, rule } of nodes) { // reaches what is added on the way
    if (!rule) {
      throw new TypeError(refused(root, `${op} was consumed by an earlier backward; run the forward again`));
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
