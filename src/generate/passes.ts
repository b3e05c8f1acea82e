/**
 * The device's side of generation: forward passes for rows of any lengths, and the choice of their next tokens.
 *
 * Rows with one token to process go together through a captured step, which is replayed for each token. A step can have
 * more places than there are rows; idle rows fill the unused places. The chosen tokens stay on the device as the input
 * of the next replay. The host reads the tokens of several steps at a time. A pass over pieces of prompts is not
 * captured. A row longer than the block size with `crop` has its own captured pass over its last tokens, because the
 * position of each of these tokens changes in every step.
 */
import { recordFields } from "../../kernels/choose/record.ts";
import { proceed } from "../../kernels/tokens/kernel.ts";
import { attentionCopy } from "../../kernels/attention/cached.ts";
import { noGrad } from "../engine/autograd.ts";
import { Storage } from "../engine/device.ts";
import { layout } from "../engine/storage.ts";
import type { ForwardOptions, GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import type { CacheType, KeyValueCache } from "../nn/cache.ts";
import { Captured } from "../nn/captured.ts";
import { layOutWeights } from "../nn/linear.ts";
import { evaluating } from "../nn/module.ts";
import { Tensor } from "../engine/tensor.ts";
import { Choosing, type ChoosingRow, idle, recordsOf, stateOf, type Told } from "./choosing.ts";
import type { RowsOptions } from "./rows.ts";
import { Windows } from "./windows.ts";

/** The most chosen tokens that wait on the device to be read, on devices where reading is slow. */
const MOST = 64;

/** A token with its slot and position in the cache. */
export interface Place {
  readonly id: number;
  readonly slot: number;
  readonly position: number;
  /** The tag of the token's row, such as its adapter (`RowOptions.tag`). */ readonly tag: number;
}

/** What a pass needs to know about a row. */
export interface PassRow extends ChoosingRow {
  /** The number that the function `tagged` gets for the row's tokens. */ readonly tag: number;
  /** Position of the row's last token. */
  readonly position: number;
}

/** The tokens chosen by steps. Call `read` before disposing. */
export interface Passed extends Disposable {
  read(): Promise<(step: number, row: number) => Told>;
}

/** The tensors of a step on the device, with the number of values for each row. */
const WIDTHS = { ids: 1, slot: 1, position: 1, tag: 1, records: recordFields.length, state: 4 } as const;
type State = keyof typeof WIDTHS;

/**
 * Width of the step that serves `count` rows: 1 to 6, 8, 12, 16, 24, 32, …. There is a step for each width up to 6,
 * because tiles of matrix products have six rows.
 */
export function stepWidth(count: number): number {
  const power = 2 ** Math.ceil(Math.log2(count));
  return count <= 6 ? count : count <= power * 3 / 4 ? power * 3 / 4 : power;
}

/** Bytes of the keys and values of a whole block: for one layer, and for all layers. */
export function slotBytes({ device, config: { nLayer, nEmbd, blockSize } }: GPT, cache: CacheType = "f32") {
  const layer = 2 * blockSize * nEmbd * device.bytesOf(cache);
  return { layer, all: nLayer * layer };
}

/** The rows, and idle rows up to a length of `width`. */
const filled = (rows: readonly ChoosingRow[], width: number): readonly ChoosingRow[] =>
  Array.from({ length: width }, (_, r) => rows[r] ?? idle);

export class Passes implements Disposable {
  /** The most tokens that are chosen before the host reads them. Each has its own row of noise. */
  readonly most: number;
  readonly choosing: Choosing;
  /** The tensors of a step. A step with R rows uses their first R places. */
  readonly #state: Record<State, Tensor>;
  /** (most) i32: the chosen tokens of several steps of R rows, as (steps, R), until the host reads them. */
  readonly #history: Tensor;
  /** (1) i32: the number of chosen tokens in `#history`. */
  readonly #first: Tensor;
  readonly #steps = new Map<number, Captured<undefined>>();
  /** The rows whose ids, slots, positions, tags and records are in `#state`. */
  #laid: readonly PassRow[] = [];
  #keys: KeyValueCache | undefined;
  #windows: Windows | undefined;
  #changes = -1;

  readonly slots: number;
  readonly cache: CacheType;
  readonly #tagged: (tags: Tensor, pass: () => Tensor) => Tensor;

  constructor(
    readonly model: GPT,
    { slots, cache, tagged = (_, pass) => pass() }:
      & Required<Pick<RowsOptions, "slots" | "cache">>
      & Pick<RowsOptions, "tagged">,
  ) {
    const { device, config: { vocabSize } } = model, size = stepWidth(slots);
    this.slots = slots;
    this.cache = cache;
    this.#tagged = tagged;
    this.most = device.readsAtOnce ? size : Math.max(size, MOST);
    using scope = device.scope(); // if something does not fit, all tensors made here are freed
    const integers = (length: number) => device.tensor(new Int32Array(length));
    const { most } = this, changed = () => this.#forget();
    this.choosing = new Choosing(device, { vocabSize, slots, most, changed });
    const [ids, slot, position, tag, state] = [1, 1, 1, 1, WIDTHS.state].map((width) => integers(width * size));
    this.#state = { ids, slot, position, tag, state, records: device.tensor(new Float32Array(WIDTHS.records * size)) };
    this.#history = integers(this.most);
    this.#first = integers(1);
    scope.keepAll();
  }

  /**
   * Lays out the weights for matrix products: before the first pass, and after weights were written. Must not run in a
   * capture.
   */
  #prepare(): void {
    if (this.#changes === layout.changes) return;
    layOutWeights(this.model);
    this.#changes = layout.changes;
  }
  /** Keys and values of all slots. Allocated on first use, because rows past the block size do not need them. */
  get #cache(): KeyValueCache {
    return this.#keys ??= this.model.createCache(this.slots, { dtype: this.cache });
  }
  /** Bytes of keys and values that are not allocated yet. */
  get unmade(): number {
    return this.slots * slotBytes(this.model, this.cache).all - this.made;
  }
  /** Bytes of keys and values that are allocated. */
  get made(): number {
    return this.#keys ? this.slots * slotBytes(this.model, this.cache).all : 0;
  }
  /** Launches steps for rows that each have one token to process. Row r of step s uses the noise row s · width + r. */
  decode(rows: readonly PassRow[], steps: number): Passed {
    const { device } = this.model, width = stepWidth(rows.length), cache = this.#cache; // allocated before the capture
    this.#prepare();
    if (rows.length !== this.#laid.length || rows.some((row, r) => row !== this.#laid[r])) this.#lay(rows, width);
    device.write(this.#view("state", width), stateOf(filled(rows, width), 0));
    device.write(this.#first.storage, [0]);
    let captured = this.#steps.get(width);
    if (!captured) this.#steps.set(width, captured = new Captured(this.model));
    for (let step = 0; step < steps; step++) {
      if (captured.program) captured.program.replay();
      else captured.capture(device, () => this.#step(width, cache));
    }
    const history = new Storage(this.#history.storage.block, steps * width);
    return {
      read: async () => {
        const [ids, likely] = await Promise.all([device.read(history), this.choosing.read(rows, 0, steps * width)]);
        return (step, row) => ({ id: ids[step * width + row], likely: likely(step * width + row) });
      },
      [Symbol.dispose]() {},
    };
  }
  #lay(rows: readonly PassRow[], width: number): void {
    const write = (name: State, of: (row: PassRow) => number, idle: number) =>
      this.model.device.write(
        this.#view(name, width),
        Array.from({ length: width }, (_, r) => r < rows.length ? of(rows[r]) : idle),
      );
    write("ids", ({ tokens }) => tokens[tokens.length - 1], 0);
    write("slot", ({ slot }) => slot, -1);
    write("position", ({ position }) => position, 0);
    write("tag", ({ tag }) => tag, 0);
    this.model.device.write(this.#view("records", width), recordsOf(filled(rows, width)));
    this.#laid = [...rows];
  }
  #view = (name: State, width: number) => new Storage(this.#state[name].storage.block, width * WIDTHS[name]);
  /** Disposes of all captured programs. */
  #forget(): void {
    for (const captured of this.#steps.values()) captured[Symbol.dispose]();
    this.#steps.clear();
    this.#windows?.[Symbol.dispose]();
    this.#windows = undefined;
  }

  #step(width: number, cache: KeyValueCache): undefined {
    using _ = this.model.device.scope();
    const view = (name: State) =>
      new Tensor(this.#view(name, width), WIDTHS[name] === 1 ? [width] : [width, WIDTHS[name]]);
    const [ids, slot, position, tag] = (["ids", "slot", "position", "tag"] as const).map(view);
    const places = { slot, position };
    const logits = this.#tagged(tag, () => this.#forward(ids.alias([width, 1]), { cache, places }));
    const steps = Math.floor(this.most / width), first = this.#first;
    const history = new Tensor(new Storage(this.#history.storage.block, steps * width), [steps, width]);
    const chosen = this.choosing.choose(logits, { records: view("records"), state: view("state") });
    launch(proceed, { chosen, ids, position, history, first });
  }
  #forward(ids: Tensor, options?: ForwardOptions): Tensor {
    return evaluating(this.model, () => noGrad(() => this.model.forward(ids, undefined, options).logits));
  }

  /**
   * Launches a pass over tokens of any rows, such as pieces of prompts.
   *
   * @param of for each of `rows`, the index in `tokens` of the token whose logits choose or score the row's next token
   * @returns undefined if `of` is empty
   */
  read(
    tokens: readonly Place[],
    of: readonly number[],
    rows: readonly ChoosingRow[],
  ): Passed | undefined {
    const { device } = this.model, cache = this.#cache;
    this.#laid = [];
    this.#prepare();
    using scope = device.scope();
    const integers = (values: number[]) => device.tensor(Int32Array.from(values));
    const ids = integers(tokens.map(({ id }) => id)).alias([1, tokens.length]);
    const places = {
      slot: integers(tokens.map(({ slot }) => slot)),
      position: integers(tokens.map(({ position }) => position)),
    };
    const tags = integers(tokens.map(({ tag }) => tag));
    if (of.length === 0) {
      this.#tagged(tags, () => evaluating(this.model, () => this.model.hidden(ids, { cache, places })));
      return undefined;
    }
    const logits = this.#tagged(tags, () => this.#forward(ids, { cache, places, of: integers([...of]) }));
    const chosen = this.choosing.once(logits, rows), all = [chosen.ids, chosen.likely];
    for (const tensor of all) if (tensor) scope.keep(tensor);
    return {
      async read() {
        const [ids, likely] = await Promise.all(all.map((tensor) => tensor?.data()));
        const length = likely ? likely.length / of.length : 0;
        return (_, row) => ({ id: ids![row], likely: likely?.subarray(row * length, (row + 1) * length) });
      },
      [Symbol.dispose]() {
        for (const tensor of all) tensor?.dispose();
      },
    };
  }

  /** Copies the keys and values of the first `count` positions of one slot to another. */
  copy(from: number, to: number, count: number): void {
    const { layers } = this.#cache;
    using _ = this.model.device.scope();
    const [source, target, counts] = [from, to, count].map((value) => this.model.device.tensor(Int32Array.of(value)));
    for (const cache of layers) launch(attentionCopy, { from: source, to: target, count: counts, cache });
  }

  /**
   * Launches steps for a row longer than the block size: passes over its last tokens. Step s uses the noise row `first`
   * + s.
   */
  crop(row: PassRow, steps: number, first: number): Passed {
    this.#prepare();
    this.#windows ??= new Windows(this.model, this.choosing, (ids) => this.#forward(ids));
    const ids = this.#windows.run(row, steps, first);
    return {
      read: async () => {
        const [idOf, likely] = await Promise.all([ids(), this.choosing.read([row], first, steps)]);
        return (step) => ({ id: idOf(step), likely: likely(step) });
      },
      [Symbol.dispose]() {},
    };
  }

  [Symbol.dispose](): void {
    this.#forget();
    for (const tensor of [...Object.values(this.#state), this.#history, this.#first]) tensor.dispose();
    this.choosing[Symbol.dispose]();
    this.#keys?.dispose();
  }
}
