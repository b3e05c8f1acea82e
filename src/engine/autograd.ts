/**
 * Reverse-mode automatic differentiation on a tape (Linnainmaa 1970), as in micrograd and PyTorch.
 *
 * The gradient of a leaf is stored in `tensor.grad`. The gradient of an intermediate tensor is freed as soon as
 * `backward` has passed it on to the inputs.
 */
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "./launch.ts";
import type { Tensor } from "./tensor.ts";

/**
 * An op's derivative: computes the gradients of its inputs from the gradient of its output, `dout`. For an input that
 * does not require a gradient it returns undefined. It may return `dout` itself.
 *
 * `into[i]` is the gradient that input i already has, if it may be changed in place. A rule whose kernel can add writes
 * into `into[i]` and returns it. Other rules return a new tensor, which `backward` adds.
 */
type Rule = (dout: Tensor, into: readonly (Tensor | undefined)[]) => readonly (Tensor | undefined)[];

/** One operation on the tape. */
export interface Node {
  readonly op: string;
  readonly order: number;
  readonly output: Tensor;
  inputs: readonly (Tensor | undefined)[];
  /** The tensors that the rule reads, with their versions at the time of recording. The tape keeps them alive. */
  saved: readonly { readonly tensor: Tensor; readonly version: number }[];
  /** Undefined after backward has consumed the node. */
  rule: Rule | undefined;
  /** How many times later nodes have this node's output as an input: 2 for `mul(y, y)`. */
  users: number;
}

let recorded = 0, recording = true;

/**
 * Runs `body` without recording its ops, like `torch.no_grad`. The results require no gradient, and no tensors are
 * saved for backward.
 *
 * @returns what `body` returns
 * @throws {TypeError} when `body` is asynchronous: recording would be off for other code that runs in between
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

/** Whether ops are recorded on the tape; false inside {@linkcode noGrad}. */
export const isRecording = (): boolean => recording;

/**
 * Records an op on the tape if any of its inputs requires a gradient.
 *
 * @param inputs the op's inputs, in the order of the rule's result; undefined for an optional input that was left out
 * @param saved every tensor that the rule reads, except `dout` and `into`
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

/**
 * Removes a node from the tape, and then its inputs' nodes, if nothing can reach it any more: its output is freed and
 * unused.
 */
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
 * Computes gradients by walking the tape from `root`, latest operation first. Without reuse of memory it would be:
 *
 *     gradients.set(root, seed)
 *     for each node that root depends on, latest first:
 *       dinputs = node.rule(gradients.get(node.output))
 *       for each input: gradients.set(input, gradients.get(input) + its dinput)
 *
 * The remaining code frees the tensors of a node as soon as it has been processed, and lets rules add to gradients in
 * place.
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
  } finally { // frees the gradients that are left if a rule threw
    gradients.dispose();
  }
}

const refused = ({ shape }: Tensor, why: string) => `Cannot apply backward to [${shape}]: ${why}`;

/** Applies a node's rule: frees the gradient of its output and adds the results to the gradients of its inputs. */
function differentiate(root: Tensor, { op, inputs, saved, rule, output }: Node, gradients: Gradients): void {
  const dout = gradients.get(output);
  if (!dout) return;
  for (const { tensor, version } of saved) {
    if (tensor.storage.block.version === version) continue;
    throw new TypeError(refused(root, `a tensor [${tensor.shape}] that ${op} had saved was changed in place since`));
  }
  using scope = output.device.scope();
  // A tensor that is an input twice has one gradient, so only its first place gets `into`.
  const into = inputs.map((input, i) =>
    input?.requiresGrad && inputs.indexOf(input) === i ? gradients.own(input) : undefined
  );
  const given = rule!(dout, into).map((dinp, i) => {
    const input = inputs[i];
    if (!dinp || !input?.requiresGrad || dinp.storage === into[i]?.storage) return;
    // `give` takes ownership, so a tensor that this rule did not make, such as dout, is passed as an alias.
    return { input, dinp: outside(dinp.scope === scope ? dinp : dinp.alias(input.shape)) };
  });
  scope[Symbol.dispose](); // frees the rule's temporaries before isAlone() counts the holders of storages
  gradients.drop(output);
  for (const one of given) if (one) gradients.give(one.input, one.dinp);
}

/**
 * The gradients found so far. The gradient of a leaf is stored in `leaf.grad` and shares its storage with no other
 * tensor.
 */
class Gradients {
  /**
   * Gradients of intermediates. No scope owns them. Two gradients can share a storage, because a rule may return `dout`
   * itself.
   */
  #intermediate = new Map<Tensor, Tensor>();

  get(tensor: Tensor): Tensor | undefined {
    return tensor.node ? this.#intermediate.get(tensor) : tensor.grad;
  }
  /** The gradient, if it may be changed in place. */
  own(tensor: Tensor): Tensor | undefined {
    const gradient = this.get(tensor);
    return gradient && (!tensor.node || isAlone(gradient)) ? gradient : undefined;
  }
  /** Adds `gradient` to the gradient of `tensor`, and takes ownership of it. */
  give(tensor: Tensor, gradient: Tensor): void {
    const before = this.get(tensor);
    let sum = this.own(tensor) ?? (before && copy(before));
    if (sum) {
      add(gradient, sum);
      gradient.dispose();
      if (sum !== before) before!.dispose();
    } else if (tensor.node || isAlone(gradient)) sum = gradient;
    else {
      sum = copy(gradient); // a leaf's gradient stays after backward, so it must not share a storage
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

/** Takes the tensor out of its scope, which then does not free it. */
function outside(tensor: Tensor): Tensor {
  tensor.scope = undefined;
  return tensor;
}

/** The nodes that `root` depends on, latest first. */
function latestFirst(root: Tensor): Node[] {
  const nodes = new Set(root.node && [root.node]);
  for (const { op, inputs, rule } of nodes) { // also visits nodes that are added during the loop
    if (!rule) {
      throw new TypeError(refused(root, `${op} was consumed by an earlier backward; run the forward again`));
    }
    for (const input of inputs) if (input?.node) nodes.add(input.node);
  }
  return [...nodes].sort((a, b) => b.order - a.order);
}

/** Computes sum += x, or copies x if there is no sum. */
function add(x: Tensor, sum?: Tensor): Tensor {
  using scope = x.device.scope();
  const flat = (tensor: Tensor) => tensor.alias([tensor.size]);
  return scope.keep(launch(accumulate, { x: flat(x), sum: sum && flat(sum) }).sum.alias(x.shape));
}
