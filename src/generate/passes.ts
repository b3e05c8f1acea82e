/**
 * The device's side of generating: forward passes for rows of any lengths, and the choice of their next tokens.
 *
 * Rows that have one token to show go together through a captured step of as many, or some more with idle ones in the places that
 * are left: its choices go into its next replay without a detour over the host, which reads some steps at a time. A pass with
 * pieces of prompts is launched as it comes. A row past the block size shows the model its last tokens, all of them, by a
 * captured pass of its own, for the position of each of them has changed.
 */
import { proceed } from "../../kernels/tokens/kernel.ts";
import { attentionCopy } from "../../kernels/attention/cached.ts";
import { noGrad } from "../engine/autograd.ts";
import { Storage } from "../engine/device.ts";
import { layout } from "../engine/storage.ts";
import type { ForwardOptions, GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import type { KeyValueCache } from "../nn/cache.ts";
import { Captured } from "../nn/captured.ts";
import { layOutWeights } from "../nn/linear.ts";
import { evaluating } from "../nn/module.ts";
import { sample } from "../ops/sample.ts";
import { Tensor } from "../engine/tensor.ts";
import { Windows } from "./windows.ts";

/** How many choices may wait on the device to be read, where reading is slow. */
const MOST = 64;

/** A token, and where it stands. */
export interface Place {
  readonly id: number;
  readonly slot: number;
  readonly position: number;
}

/** A row, as a pass sees it. */
export interface PassRow {
  readonly slot: number;
  /** All its tokens, the prompt's too. */
  readonly tokens: readonly number[];
  /** Where the last of them stands. */
  readonly position: number;
  /** 0 takes the likeliest. */
  readonly temperature: number;
  /** 0 is all. */
  readonly topK: number;
}

/** What steps have computed; disposed of when it has been read. */
export interface Passed extends Disposable {
  /** (R, 1, V), the last step's. */
  readonly logits: Tensor;
  /** Reads what the device has chosen. */
  ids(): Promise<(step: number, row: number) => number>;
}

/** What a step's rows have on the device. */
type State = "ids" | "slot" | "position" | "temperature" | "topK";

/** How many rows the step has that serves so many: 1 to 6, 8, 12, 16, 24, 32, …, for tiles of products have six rows. */
export function stepWidth(count: number): number {
  const power = 2 ** Math.ceil(Math.log2(count));
  return count <= 6 ? count : count <= power * 3 / 4 ? power * 3 / 4 : power;
}

export class Passes implements Disposable {
  /** How many choices have noise between two readings. */
  readonly most: number;
  /** (most, V): the noise for them. */
  readonly #drawn: Float32Array;
  readonly #noise: Tensor;
  /** Of a step's R rows, in the first R places. */
  readonly #state: Record<State, Tensor>;
  /** (most) i32: what the steps since the last reading have chosen, (steps, R). */
  readonly #history: Tensor;
  /** (1) i32: how many choices those were. */
  readonly #first: Tensor;
  readonly #steps = new Map<number, Captured<Tensor>>();
  /** The rows whose state is on the device. */
  #laid: readonly PassRow[] = [];
  #keys: KeyValueCache | undefined;
  #windows: Windows | undefined;
  #changes = -1;

  constructor(readonly model: GPT, readonly slots: number) {
    const { device, config: { vocabSize } } = model, size = stepWidth(slots);
    this.most = device.readsAtOnce ? size : Math.max(size, MOST);
    this.#drawn = new Float32Array(this.most * vocabSize).fill(1);
    using scope = device.scope(); // what does not fit leaves nothing behind
    const integers = (length: number) => device.tensor(new Int32Array(length));
    this.#noise = device.tensor(this.#drawn, [this.most, vocabSize]);
    const [ids, slot, position, topK] = [0, 0, 0, 0].map(() => integers(size));
    this.#state = { ids, slot, position, topK, temperature: device.tensor(new Float32Array(size)) };
    this.#history = integers(this.most);
    this.#first = integers(1);
    scope.keepAll();
  }

  /** Lays the weights out to be multiplied, again where one has been written: outside of a capture. */
  #prepare(): void {
    if (this.#changes === layout.changes) return;
    layOutWeights(this.model);
    this.#changes = layout.changes;
  }
  /** Keys and values of all slots; made when they are needed, for a row past the block size does without. */
  get #cache(): KeyValueCache {
    return this.#keys ??= this.model.createCache(this.slots);
  }
  /** The noise for choice number `at` of the next pass, to be filled. */
  noise(at: number): Float32Array {
    const { vocabSize } = this.model.config;
    return this.#drawn.subarray(at * vocabSize, (at + 1) * vocabSize);
  }
  /** Takes the noise for so many choices to the device. */
  write(count: number): void {
    const length = count * this.model.config.vocabSize;
    this.model.device.write(new Storage(this.#noise.storage.block, length), this.#drawn.subarray(0, length));
  }

  /** Launches steps of rows that each have one token to show. Choice r of step s has the noise number s · width + r. */
  decode(rows: readonly PassRow[], steps: number): Passed {
    const { device } = this.model, width = stepWidth(rows.length), cache = this.#cache; // made outside of the capture
    this.#prepare();
    if (rows.length !== this.#laid.length || rows.some((row, r) => row !== this.#laid[r])) this.#lay(rows, width);
    device.write(this.#first.storage, [0]);
    let captured = this.#steps.get(width);
    if (!captured) this.#steps.set(width, captured = new Captured(this.model));
    for (let step = 0; step < steps; step++) {
      if (captured.program) captured.program.replay();
      else captured.capture(device, () => this.#step(width, cache));
    }
    const history = new Storage(this.#history.storage.block, steps * width);
    return {
      logits: captured.program!.result,
      async ids() {
        const ids = await device.read(history);
        return (step, row) => ids[step * width + row];
      },
      [Symbol.dispose]() {},
    };
  }
  /** Says that the host has chosen a row's next token: what the device has is not right any more. */
  forget(): void {
    this.#laid = [];
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
    write("temperature", ({ temperature }) => temperature, 0);
    write("topK", ({ topK }) => topK, 0);
    this.#laid = [...rows];
  }
  #view = (name: State, width: number) => new Storage(this.#state[name].storage.block, width);

  #step(width: number, cache: KeyValueCache): Tensor {
    using scope = this.model.device.scope();
    const view = (name: State) => new Tensor(this.#view(name, width), [width]);
    const [ids, slot, position, temperature, topK] = (["ids", "slot", "position", "temperature", "topK"] as const).map(
      view,
    );
    const logits = this.#forward(ids.alias([width, 1]), { cache, places: { slot, position } });
    const steps = Math.floor(this.most / width), first = this.#first;
    const history = new Tensor(new Storage(this.#history.storage.block, steps * width), [steps, width]);
    const chosen = sample(logits.alias([width, logits.shape[2]]), this.#noise, { first, temperature, topK });
    launch(proceed, { chosen, ids, position, history, first });
    return scope.keep(logits);
  }
  #forward(ids: Tensor, options?: ForwardOptions): Tensor {
    return evaluating(this.model, () => noGrad(() => this.model.forward(ids, undefined, options).logits));
  }

  /**
   * A pass over any tokens.
   *
   * @param of the numbers of the tokens whose logits are wanted, those that `rows` go on from first
   * @returns nothing where none are wanted; the caller disposes of the logits
   */
  read(tokens: readonly Place[], of: readonly number[], rows: readonly PassRow[]): Passed | undefined {
    const { device, config: { vocabSize } } = this.model, cache = this.#cache;
    this.#laid = [];
    this.#prepare();
    using scope = device.scope();
    const integers = (values: number[]) => device.tensor(Int32Array.from(values));
    const ids = integers(tokens.map(({ id }) => id)).alias([1, tokens.length]);
    const places = {
      slot: integers(tokens.map(({ slot }) => slot)),
      position: integers(tokens.map(({ position }) => position)),
    };
    if (of.length === 0) {
      evaluating(this.model, () => this.model.hidden(ids, { cache, places }));
      return undefined;
    }
    const logits = this.#forward(ids, { cache, places, of: integers([...of]) }), R = Math.max(rows.length, 1);
    const wanted = new Tensor(new Storage(logits.storage.block, R * vocabSize), [R, vocabSize]);
    const temperature = device.tensor(Float32Array.from({ length: R }, (_, r) => rows[r]?.temperature ?? 0));
    const topK = integers(Array.from({ length: R }, (_, r) => rows[r]?.topK ?? 0));
    const chosen = sample(wanted, this.#noise, { temperature, topK });
    for (const tensor of [logits, chosen]) scope.keep(tensor);
    return {
      logits,
      async ids() {
        const ids = await chosen.data();
        return (_, row) => ids[row];
      },
      [Symbol.dispose]() {
        for (const tensor of [logits, chosen]) tensor.dispose();
      },
    };
  }

  /** Copies the first `count` places of one slot to another. */
  copy(from: number, to: number, count: number): void {
    const { layers } = this.#cache;
    using _ = this.model.device.scope();
    const [source, target, counts] = [from, to, count].map((value) => this.model.device.tensor(Int32Array.of(value)));
    for (const cache of layers) launch(attentionCopy, { from: source, to: target, count: counts, cache });
  }

  /** Launches steps of a row past the block size, each of which shows the model its last tokens. Its noise begins at `first`. */
  crop(row: PassRow, steps: number, first: number): Passed {
    this.#prepare();
    this.#windows ??= new Windows(this.model, this.#noise, (ids) => this.#forward(ids));
    return this.#windows.run(row, steps, first);
  }

  [Symbol.dispose](): void {
    for (const captured of this.#steps.values()) captured[Symbol.dispose]();
    for (const tensor of [...Object.values(this.#state), this.#noise, this.#history, this.#first]) tensor.dispose();
    this.#keys?.dispose();
    this.#windows?.[Symbol.dispose]();
  }
}
