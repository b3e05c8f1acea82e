/**
 * The wrappers that an adapter puts around layers of a model. The wrapper of a linear layer adds two small matrices; the
 * wrapper of the token embeddings, or of a head tied to them, adds trained rows for some tokens. The wrapped layers are
 * not changed and may have any storage type.
 */
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { matmulNN } from "../../kernels/matmul/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import { Tensor, untrainable } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import { Dropout } from "../nn/dropout.ts";
import type { Embedding } from "../nn/embedding.ts";
import { Linear } from "../nn/linear.ts";
import { isContainer, Module } from "../nn/module.ts";
import { add, embedding, matmul, mul, sub } from "../ops/mod.ts";
import { addLowRank } from "../ops/low_rank.ts";
import type { RandomGenerator } from "../random/mod.ts";

/** A wrapper around a layer or an embedding table of the base. */
export interface Wrapper<Base extends Module = Module> extends Module {
  base_layer: Base;
  enabled: boolean;
  /** Adds the adapter's change to the base's weight, permanently. */
  merge(): void;
  /** The wrapper's own parameters. Their names continue the layer's path. */
  own(): [name: string, tensor: Tensor][];
}

/** A linear layer with a LoRA adapter. Field names are PEFT's. */
export class LoraLinear extends Module {
  /** Dropout of the adapter's input. */ readonly lora_dropout: Dropout;
  /** (r, in) */ readonly lora_A: Linear;
  /** (out, r) */ readonly lora_B: Linear;
  /** Factor of B · A. */ readonly scaling: number;
  /** Whether the adapter is applied. */ enabled = true;

  /** Wraps a layer, which may already be the wrapper of another adapter. */
  constructor(
    /** The wrapped layer. */ public base_layer: Linear,
    { rank, scaling, dropout, generator, noise }: {
      rank: number;
      scaling: number;
      dropout: number;
      /** Draws the weights. If undefined, they are not initialised. */ generator?: RandomGenerator;
      noise: GPT["noise"];
    },
  ) {
    super();
    const { device, shape: [out, inner] } = base_layer.weight;
    using scope = device.scope();
    this.scaling = scaling;
    this.lora_dropout = new Dropout(dropout, noise);
    const options = { device, bias: false, initialize: generator !== undefined, generator };
    this.lora_A = new Linear(inner, rank, options); // as in PEFT, both layers draw weights, then A is drawn again
    this.lora_B = new Linear(rank, out, options);
    const [A, B] = [this.lora_A.weight.storage, this.lora_B.weight.storage], bound = 1 / Math.sqrt(inner);
    if (generator) {
      device.fill(A, (values) => generator.uniform(values, -bound, bound));
      device.fill(B, (values) => values.fill(0));
    }
    if (!base_layer.training) this.eval();
    scope.keepAll();
  }
  /** The base's weight. */ get weight(): Tensor {
    return this.base_layer.weight;
  }
  /** The base's bias. */ get bias(): Tensor | undefined {
    return this.base_layer.bias;
  }
  /** Computes base(x) + scaling · B · A · dropout(x): (…, in) to (…, out). */
  forward(x: Tensor): Tensor {
    const { base_layer, lora_dropout, lora_A: { weight: A }, lora_B: { weight: B }, scaling } = this;
    if (!this.enabled) return base_layer.forward(x);
    using scope = x.device.scope();
    return scope.keep(addLowRank(base_layer.forward(x), lora_dropout.forward(x), { A, B, scaling }));
  }
  /** @internal Adds scaling · B · A to the base's weight, permanently. */
  merge(): void {
    const { lora_A: { weight: A }, lora_B: { weight: B }, weight, scaling } = this;
    addProduct(weight, noGrad(() => mul(B, A.device.tensor([scaling], []))), A);
  }
  /** @internal */
  own(): [string, Tensor][] {
    return [["lora_A.weight", this.lora_A.weight], ["lora_B.weight", this.lora_B.weight]];
  }
}

/**
 * Trained embeddings of n tokens, for a table W (V, C) that is frozen: row i of `rows` replaces the row of the i-th
 * token. With D = rows − the tokens' rows in W, and E (V, n), where E[id, i] = 1 if id is the i-th token and 0
 * otherwise, the effective table is W + E · D.
 */
export class TunedRows extends Module {
  /** (n, C) */ readonly rows: Tensor;
  /** (n, C): the tokens' rows in W. */ readonly #original: Tensor;
  /** E, (V, n). */ readonly #marks: Tensor;

  constructor({ weight }: { readonly weight: Tensor }, ids: readonly number[]) {
    super();
    const { device, shape: [V] } = weight, n = ids.length;
    using scope = device.scope();
    this.#original = noGrad(() => embedding(device.tensor(Int32Array.from(ids), [n], { dtype: "i32" }), weight));
    const { storage, shape } = copyOf(this.#original);
    this.rows = new Tensor(storage, shape);
    const marks = new Float32Array(V * n);
    for (const [i, id] of ids.entries()) marks[id * n + i] = 1;
    this.#marks = device.tensor(marks, [V, n]);
    for (const kept of [this.#original, this.rows, this.#marks]) scope.keep(kept);
  }
  /** E, (V, n). */ get marks(): Tensor {
    return this.#marks;
  }
  /** D, (n, C). */ get change(): Tensor {
    return sub(this.rows, this.#original);
  }
  override dispose(): void {
    super.dispose();
    this.#original.dispose();
    this.#marks.dispose();
  }
}

/** The token embeddings, or the head tied to them, with trained rows for some tokens. */
export class TunedTokens extends Module implements Wrapper<Embedding | Linear> {
  enabled = true;

  constructor(public base_layer: Embedding & Linear, readonly token_adapter: TunedRows, readonly isHead: boolean) {
    super();
    if (!base_layer.training) this.eval();
  }
  get weight(): Tensor {
    return this.base_layer.weight;
  }
  get bias(): Tensor | undefined {
    return this.base_layer.bias;
  }
  /** Embeddings: ids (…) to vectors (…, C). Head: states (…, C) to logits (…, V). */
  forward(input: Tensor): Tensor {
    const { base_layer, token_adapter } = this;
    if (!this.enabled) return base_layer.forward(input);
    using scope = input.device.scope();
    const y = base_layer.forward(input), { marks, change } = token_adapter;
    if (this.isHead) return scope.keep(addLowRank(y, input, { A: change, B: marks, scaling: 1 }));
    return scope.keep(add(y, matmul(embedding(input, marks), change)));
  }
  merge(): void {
    if (this.isHead) return; // the table is shared: the wrapper of the token embeddings merges the change
    const { marks, change } = this.token_adapter;
    addProduct(this.weight, marks, change);
  }
  own(): [string, Tensor][] {
    return this.isHead ? [] : [["token_adapter.trainable_tokens_delta", this.token_adapter.rows]];
  }
}

/** Computes weight += a · b. */
function addProduct(weight: Tensor, a: Tensor, b: Tensor): void {
  const [M, K] = a.shape, [, N] = b.shape;
  launch(matmulNN, { a: a.alias([1, M, K]), b: b.alias([1, K, N]), c: weight.alias([1, M, N]) });
}

/** A copy of a tensor in f32 and row-major order, which can be trained. */
export function copyOf(tensor: Tensor): Tensor {
  const { device, size, shape } = tensor;
  if (!untrainable(tensor.storage)) return launch(accumulate, { x: tensor.alias([size]) }).sum.alias(shape);
  const rows = device.tensor(Int32Array.from({ length: shape[0] }, (_, i) => i), [shape[0]], { dtype: "i32" });
  return noGrad(() => embedding(rows, tensor));
}

/** Unties the head from the token embeddings: the head's weight becomes a copy. */
export function untie({ lm_head, device }: GPT): void {
  let layer: Linear = lm_head;
  while ("base_layer" in layer) layer = layer.base_layer as Linear;
  using scope = device.scope();
  const { storage, shape } = copyOf(layer.weight);
  layer.weight = scope.keep(new Tensor(storage, shape));
}

/** The tensors below a module that can be trained, with their names and the fields that hold them. */
export function* tensorPlaces(
  value: Module | Record<string, unknown>,
  path: string,
): Generator<[name: string, holder: Record<string, unknown>, key: string, tensor: Tensor]> {
  for (const [key, item] of Object.entries(value)) {
    const name = `${path}.${key}`;
    if (item instanceof Tensor && item.dtype !== "i32") yield [name, value as Record<string, unknown>, key, item];
    else if (item instanceof Module || isContainer(item)) yield* tensorPlaces(item, name);
  }
}
