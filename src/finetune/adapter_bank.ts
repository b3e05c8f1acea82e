/**
 * Several LoRA adapters on one base model at the same time: each token of a pass uses its own adapter, or none.
 *
 * For each layer, the matrices A of all adapters are stacked to (R, in), where R is the sum of their ranks, and the
 * matrices B are concatenated to (out, R). The matrix S, (tokens, R), holds the scaling of each token's adapter in that
 * adapter's columns and zeros elsewhere. The layer adds (x · Aᵀ ∘ S) · Bᵀ, which is what the token's own adapter adds,
 * because the other adapters are multiplied by zero. So the shapes of a pass do not depend on which adapters its tokens
 * use, and one pass serves all adapters.
 */
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { Linear } from "../nn/linear.ts";
import { Module } from "../nn/module.ts";
import { embedding } from "../ops/embedding.ts";
import { addLowRank } from "../ops/low_rank.ts";
import { type AdapterPair, type LoadAdapterOptions, readPairs } from "./adapter.ts";
import { linearPlaces } from "./targets.ts";

interface StoredAdapter {
  readonly pairs: ReadonlyMap<string, AdapterPair>;
  /** The largest rank among the adapter's layers. */ readonly rank: number;
  /** The scaling of the adapter's first layer. If another layer has a different scaling, its B contains the ratio. */
  readonly scaling: number;
}

/** A layer with the matrices of all adapters. */
class BankLinear extends Module {
  /** (R, in) */ readonly bank_A: Tensor;
  /** (out, R) */ readonly bank_B: Tensor;
  readonly #scales: () => Tensor | undefined;

  constructor(
    public base_layer: Linear,
    { A, B, R }: { A: Float32Array; B: Float32Array; R: number },
    scales: () => Tensor | undefined,
  ) {
    super();
    const { device, shape: [out, inner] } = base_layer.weight;
    using scope = device.scope();
    this.bank_A = device.tensor(A, [R, inner]);
    this.bank_B = device.tensor(B, [out, R]);
    this.#scales = scales;
    this.training = base_layer.training;
    scope.keepAll();
  }
  get weight(): Tensor {
    return this.base_layer.weight;
  }
  get bias(): Tensor | undefined {
    return this.base_layer.bias;
  }
  forward(x: Tensor): Tensor {
    const scaling = this.#scales();
    if (!scaling) return this.base_layer.forward(x);
    using scope = x.device.scope();
    return scope.keep(addLowRank(this.base_layer.forward(x), x, { A: this.bank_A, B: this.bank_B, scaling }));
  }
}

/**
 * Adapters on a model, numbered from 1; number 0 is the base without an adapter. The bank replaces layers in the
 * model's fields; they stay replaced until the model is disposed of.
 *
 * @example
 * ```ts ignore
 * const bank = new AdapterBank(model), [formal, casual] = [await bank.add("formal"), await bank.add("casual")];
 * using rows = new Rows(model, { slots: 8, tagged: bank.tagged });
 * const options = { prompt, maxNewTokens: 20, overflow: "refuse" } as const;
 * const texts = [formal, casual, 0].map((tag) => rows.add({ ...options, tag })); // all three texts are written in the same passes
 * ```
 */
export class AdapterBank {
  readonly #adapters: StoredAdapter[] = [];
  #layers: { readonly holder: Record<string, unknown>; readonly key: string; readonly layer: BankLinear }[] = [];
  /** (adapters + 1, R): row k has the scaling of adapter k in its columns. */
  #table: Tensor | undefined;
  /** S of the running pass, (tokens, R). */
  #scales: Tensor | undefined;

  /** Creates an empty bank. */
  constructor(readonly model: GPT) {}

  /**
   * Loads an adapter from a PEFT folder.
   *
   * @returns the adapter's number; undefined if it changes more than the layers of blocks, and needs a model of its own
   * @throws {CheckpointError} as `loadAdapter`, and when a weight is not finite: NaN · 0 is NaN, in the texts of other
   *   adapters too
   * @throws {DeviceError} when the adapter does not fit into memory
   */
  async add(path: string, options: Pick<LoadAdapterOptions, "onNote"> = {}): Promise<number | undefined> {
    const pairs = await readPairs(path, this.model, options);
    if (!pairs) return;
    for (const [name, { A, B }] of pairs) {
      if ([A, B].every((values) => values.every(Number.isFinite))) continue;
      throw new CheckpointError(`${path}: a weight of ${name} is not a finite number`);
    }
    const all = [...pairs.values()];
    this.#unwrap();
    this.#adapters.push({ pairs, rank: Math.max(...all.map(({ rank }) => rank)), scaling: all[0].scaling });
    try {
      this.#wrap();
    } catch (error) { // it does not fit into memory
      this.#unwrap();
      this.#adapters.pop();
      this.#wrap();
      throw error;
    }
    return this.#adapters.length;
  }

  /** Removes an adapter that no row uses any more. The numbers of the other adapters do not change. */
  remove(number: number): void {
    this.#unwrap();
    this.#adapters[number - 1] = { pairs: new Map(), rank: 0, scaling: 0 };
    this.#wrap();
  }

  /**
   * Runs a pass over tokens. `tags`, i32, is the number of each token's adapter. The tensors that the pass creates
   * belong to the scope around the call.
   */
  readonly tagged = (tags: Tensor, pass: () => Tensor): Tensor => {
    if (!this.#table) return pass();
    this.#scales = noGrad(() => embedding(tags, this.#table!));
    try {
      return pass();
    } finally {
      this.#scales = undefined;
    }
  };

  #wrap(): void {
    const { device } = this.model, adapters = this.#adapters;
    let R = 0;
    const at = adapters.map(({ rank }) => (R += rank) - rank);
    if (R > 0) {
      const table = new Float32Array((adapters.length + 1) * R);
      adapters.forEach(({ rank, scaling }, k) => table.fill(scaling, (k + 1) * R + at[k], (k + 1) * R + at[k] + rank));
      this.#table = device.tensor(table, [adapters.length + 1, R]);
    }
    for (const { path, holder, key } of [...linearPlaces(this.model)]) {
      if (!adapters.some(({ pairs }) => pairs.has(path))) continue;
      const base = holder[key] as Linear, [out, inner] = base.weight.shape;
      const A = new Float32Array(R * inner), B = new Float32Array(out * R);
      for (const [k, { pairs, scaling }] of adapters.entries()) {
        const pair = pairs.get(path);
        if (!pair) continue;
        A.set(pair.A, at[k] * inner);
        const { rank } = pair, by = pair.scaling / scaling;
        for (let i = 0; i < out * rank; i++) B[Math.floor(i / rank) * R + at[k] + i % rank] = pair.B[i] * by;
      }
      const layer = new BankLinear(base, { A, B, R }, () => this.#scales);
      holder[key] = layer;
      this.#layers.push({ holder, key, layer });
    }
    this.model.changed();
  }
  #unwrap(): void {
    for (const { holder, key, layer } of this.#layers) {
      holder[key] = layer.base_layer;
      layer.bank_A.dispose();
      layer.bank_B.dispose();
    }
    this.#layers = [];
    this.#table?.dispose();
    this.#table = undefined;
    this.model.changed();
  }
}
