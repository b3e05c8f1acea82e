/**
 * What an adapter puts round the layers of a model: a pair of small matrices round a linear layer, and rows of some tokens round the
 * token embeddings and a head that is tied to them. The layers of the base stay as they are, in whatever type they are stored.
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
import { Module } from "../nn/module.ts";
import { add } from "../ops/add.ts";
import { embedding } from "../ops/embedding.ts";
import { addLowRank } from "../ops/low_rank.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { sub } from "../ops/sub.ts";
import type { RandomGenerator } from "../random/mod.ts";

/** What stands round a layer or a table of the base. */
export interface Wrapper<Base extends Module = Module> extends Module {
  base_layer: Base;
  enabled: boolean;
  /** Adds what it computes to the base, for good. */
  merge(): void;
  /** Its own parameters, by what follows the path in their names. */
  own(): [name: string, tensor: Tensor][];
}

/** A linear layer with an adapter; the names are PEFT's. */
export class LoraLinear extends Module {
  /** Of the adapter's input. */ readonly lora_dropout: Dropout;
  /** (r, in) */ readonly lora_A: Linear;
  /** (out, r) */ readonly lora_B: Linear;
  /** What B · A is multiplied by. */ readonly scaling: number;
  /** Whether the adapter adds anything now. */ enabled = true;

  /** Puts an adapter round a layer, or round one that has an adapter already. */
  constructor(
    /** What it is put round. */ public base_layer: Linear,
    { rank, scaling, dropout, generator, noise }: {
      rank: number;
      scaling: number;
      dropout: number;
      /** Draws the weights; without, they are left undefined. */ generator?: RandomGenerator;
      noise: GPT["noise"];
    },
  ) {
    super();
    const { device, shape: [out, inner] } = base_layer.weight;
    using scope = device.scope();
    this.scaling = scaling;
    this.lora_dropout = new Dropout(dropout, noise);
    const options = { device, bias: false, initialize: generator !== undefined, generator };
    this.lora_A = new Linear(inner, rank, options); // as PEFT: both layers draw, then A is drawn again
    this.lora_B = new Linear(rank, out, options);
    const [A, B] = [this.lora_A.weight.storage, this.lora_B.weight.storage], bound = 1 / Math.sqrt(inner);
    if (generator) {
      device.fill(A, (values) => generator.uniform(values, -bound, bound));
      device.fill(B, (values) => values.fill(0));
    }
    if (!base_layer.training) this.eval();
    scope.keepAll();
  }
  /** The base's. */ get weight(): Tensor {
    return this.base_layer.weight;
  }
  /** The base's. */ get bias(): Tensor | undefined {
    return this.base_layer.bias;
  }
  /** base(x) + scaling · B · A · dropout(x); x (…, in), and the result (…, out). */
  forward(x: Tensor): Tensor {
    const { base_layer, lora_dropout, lora_A: { weight: A }, lora_B: { weight: B }, scaling } = this;
    if (!this.enabled) return base_layer.forward(x);
    using scope = x.device.scope();
    return scope.keep(addLowRank(base_layer.forward(x), lora_dropout.forward(x), { A, B, scaling }));
  }
  /** @internal Adds scaling · B · A to the base, for good. */
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
 * Rows of tokens that are trained beside a table that is not: row i of `rows` stands for that of the i-th token. With D, the rows
 * less those of the base, and E, which has a row for each token of the vocabulary and a one where it is the i-th of these, the
 * table is W + E · D.
 */
export class TunedRows extends Module {
  /** (n, C) */ readonly rows: Tensor;
  /** (n, C) of the base. */ readonly #original: Tensor;
  /** (V, n) */ readonly #marks: Tensor;

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
  /** E. */ get marks(): Tensor {
    return this.#marks;
  }
  /** D. */ get change(): Tensor {
    return sub(this.rows, this.#original);
  }
  override dispose(): void {
    super.dispose();
    this.#original.dispose();
    this.#marks.dispose();
  }
}

/** The token embeddings, or the head that they are tied to, with rows of their own for some tokens. */
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
  /** Vectors of ids (…), or of a head logits of x (…, C). */
  forward(input: Tensor): Tensor {
    const { base_layer, token_adapter } = this;
    if (!this.enabled) return base_layer.forward(input);
    using scope = input.device.scope();
    const y = base_layer.forward(input), { marks, change } = token_adapter;
    if (this.isHead) return scope.keep(addLowRank(y, input, { A: change, B: marks, scaling: 1 }));
    return scope.keep(add(y, matmul(embedding(input, marks), change)));
  }
  merge(): void {
    if (this.isHead) return; // the same table
    const { marks, change } = this.token_adapter;
    addProduct(this.weight, marks, change);
  }
  own(): [string, Tensor][] {
    return this.isHead ? [] : [["token_adapter.trainable_tokens_delta", this.token_adapter.rows]];
  }
}

/** weight += a · b */
function addProduct(weight: Tensor, a: Tensor, b: Tensor): void {
  const [M, K] = a.shape, [, N] = b.shape;
  launch(matmulNN, { a: a.alias([1, M, K]), b: b.alias([1, K, N]), c: weight.alias([1, M, N]) });
}

/** A tensor in f32, row by row, that can be trained. */
export function copyOf(tensor: Tensor): Tensor {
  const { device, size, shape } = tensor;
  if (!untrainable(tensor.storage)) return launch(accumulate, { x: tensor.alias([size]) }).sum.alias(shape);
  const rows = device.tensor(Int32Array.from({ length: shape[0] }, (_, i) => i), [shape[0]], { dtype: "i32" });
  return noGrad(() => embedding(rows, tensor));
}
