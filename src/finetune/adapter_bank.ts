/**
 * Several LoRA adapters on one base at once: each token of a pass has its own, or none.
 *
 * Of a layer the A of all adapters lie on top of each other, (R, in) with R the sum of their ranks, and the B side by side,
 * (out, R). With S (tokens, R), which holds a token's scaling in the columns of its adapter and zeros elsewhere, the layer adds
 * (x · Aᵀ ∘ S) · Bᵀ: what the token's own adapter alone would, for the others add zeros. So a pass has the same shapes whoever is in
 * it, and one pass serves all.
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
  /** The greatest of its layers. */ readonly rank: number;
  /** Of its first layer; what others differ by goes into their B. */ readonly scaling: number;
}

/** A layer with the pairs of all adapters. */
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
 * Adapters by their numbers from 1; 0 is the base alone. It stands in the fields of the model until the model is disposed of.
 *
 * @example
 * ```ts ignore
 * const bank = new AdapterBank(model), [formal, casual] = [await bank.add("formal"), await bank.add("casual")];
 * using rows = new Rows(model, { slots: 8, tagged: bank.tagged });
 * const options = { prompt, maxNewTokens: 20, overflow: "refuse" } as const;
 * const texts = [formal, casual, 0].map((tag) => rows.add({ ...options, tag })); // written together
 * ```
 */
export class AdapterBank {
  readonly #adapters: StoredAdapter[] = [];
  #layers: { readonly holder: Record<string, unknown>; readonly key: string; readonly layer: BankLinear }[] = [];
  /** (adapters + 1, R): the scaling of each in its own columns. */
  #table: Tensor | undefined;
  /** (tokens, R), of the pass that runs. */
  #scales: Tensor | undefined;

  /** Of none. */
  constructor(readonly model: GPT) {}

  /**
   * Takes an adapter of the model out of a PEFT folder; passes until then are without it.
   *
   * @returns its number; undefined where it has more than pairs for layers, and needs a model of its own
   * @throws {CheckpointError} as `loadAdapter`, and when a weight is not a number: it would spoil the other adapters' texts
   * @throws {DeviceError} when it does not fit
   */
  async add(path: string, options: Pick<LoadAdapterOptions, "onNote"> = {}): Promise<number | undefined> {
    const pairs = await readPairs(path, this.model, options);
    if (!pairs) return;
    for (const [name, { A, B }] of pairs) {
      if ([A, B].every((values) => values.every(Number.isFinite))) continue;
      throw new CheckpointError(`${path}: a weight of ${name} is not a number`);
    }
    const all = [...pairs.values()];
    this.#unwrap();
    this.#adapters.push({ pairs, rank: Math.max(...all.map(({ rank }) => rank)), scaling: all[0].scaling });
    try {
      this.#wrap();
    } catch (error) { // it does not fit
      this.#unwrap();
      this.#adapters.pop();
      this.#wrap();
      throw error;
    }
    return this.#adapters.length;
  }

  /** Takes an adapter out, of which no row is written any more; the others keep their numbers. */
  remove(number: number): void {
    this.#unwrap();
    this.#adapters[number - 1] = { pairs: new Map(), rank: 0, scaling: 0 };
    this.#wrap();
  }

  /** Runs a pass over tokens with the adapters of these numbers, i32, one a token, in the scope around the call. */
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
