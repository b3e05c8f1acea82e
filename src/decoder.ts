/**
 * Decoding on the device: the next token is chosen there and goes into the next forward pass without a detour over the host,
 * which reads some of them at a time.
 *
 * Up to the block size a key-value cache makes a token cost one token's work; beyond it the window slides as nanoGPT's does,
 * and every token costs a whole forward pass, because each position in the window has changed. Each of the two is captured
 * with its first token, and replayed for the others.
 */
import { advance, append, latest } from "../kernels/tokens/kernel.ts";
import { noGrad } from "./autograd.ts";
import { type Program, Storage } from "./device/device.ts";
import type { GPT } from "./gpt.ts";
import { launch } from "./launch.ts";
import type { KeyValueCache } from "./nn/cache.ts";
import { embedding } from "./ops/embedding.ts";
import { sample } from "./ops/sample.ts";
import { Pace } from "./pace.ts";
import type { Generator, GeneratorState } from "./random.ts";
import { Tensor } from "./tensor.ts";

/** Milliseconds from one reading to the next, so that text flows, and the most tokens that are read at a time. */
const PACE = 60, MOST = 64;

export interface DecoderOptions {
  /** Divides the logits; 0 takes the likeliest. */
  readonly temperature?: number;
  /** Only the likeliest so many are drawn from. */
  readonly topK?: number;
  /** Draws the noise. */
  readonly generator: Generator;
}

export class Decoder implements Disposable {
  /** How many tokens of the last {@linkcode next} were used. */
  taken = 0;
  /** (1, S) i32: token number n lies at n mod S. */
  readonly #ring: Tensor;
  /** (1) i32: how many tokens there are. */
  readonly #count: Tensor;
  /** (MOST, V): noise for one token a row; and (1) i32, the next token's row. */
  readonly #noise: Tensor;
  readonly #row: Tensor;
  readonly #cache: KeyValueCache | undefined;
  #programs: Partial<Record<"cached" | "window", Program>> = {};
  /** As {@linkcode #count}. */
  #tokens: number;
  readonly #prompt: number;
  readonly #pace: Pace;
  readonly #drawn: Float32Array;
  /** Of the generator, before the noise of the last {@linkcode next} was drawn, for so many tokens. */
  #before: { state: GeneratorState; tokens: number } | undefined;

  /** @param prompt token ids, of which the model sees the last ones where they are more than the block size */
  constructor(readonly model: GPT, prompt: readonly number[], readonly options: DecoderOptions) {
    const { device, config: { blockSize, vocabSize } } = model, seen = prompt.slice(-blockSize);
    const most = device.readsAtOnce ? 1 : MOST, ring = new Int32Array(Math.max(blockSize, most));
    ring.set(seen);
    this.#pace = new Pace(PACE, most);
    this.#drawn = new Float32Array(most * vocabSize).fill(1);
    this.#prompt = this.#tokens = seen.length;
    this.#ring = device.tensor(ring, [1, ring.length], { dtype: "i32" });
    this.#count = device.tensor([seen.length], [1], { dtype: "i32" });
    this.#noise = device.tensor(this.#drawn, [most, vocabSize]);
    this.#row = device.tensor([0], [1], { dtype: "i32" });
    this.#cache = prompt.length <= blockSize ? model.createCache() : undefined;
  }

  /** The next tokens, at least one and at most `most`. */
  async next(most: number): Promise<number[]> {
    const { device } = this.model, count = Math.min(most, this.#pace.steps);
    this.#pace.begin();
    this.#draw(count);
    for (let i = 0; i < count; i++) this.#advance();
    const ring = await device.read(this.#ring.storage), S = ring.length, first = this.#tokens - count;
    if (count === this.#pace.steps) this.#pace.waited();
    return Array.from({ length: count }, (_, i) => ring[(first + i) % S]);
  }

  /** Puts the generator where it would be if noise had been drawn only for the tokens that were taken. */
  putBack(): void {
    const { generator, temperature = 1 } = this.options, { vocabSize } = this.model.config;
    if (!this.#before || this.taken === this.#before.tokens || temperature === 0) return;
    generator.setState(this.#before.state);
    for (let i = 0; i < this.taken; i++) generator.exponential(this.#drawn.subarray(0, vocabSize));
    this.#before = undefined;
  }

  /** Noise for the next tokens. */
  #draw(count: number): void {
    const { generator, temperature = 1 } = this.options, { device, config: { vocabSize: V } } = this.model;
    this.#before = { state: generator.getState(), tokens: count };
    this.taken = 0;
    device.write(this.#row.storage, [0]);
    if (temperature === 0) return;
    for (let i = 0; i < count; i++) generator.exponential(this.#drawn.subarray(i * V, (i + 1) * V));
    device.write(new Storage(this.#noise.storage.block, count * V), this.#drawn.subarray(0, count * V));
  }

  /** Chooses one more token, on the device. */
  #advance(): void {
    const { device, config: { blockSize } } = this.model;
    if (this.#tokens === this.#prompt && this.#cache) this.#choose(this.#tokens, this.#cache); // reads the prompt
    else {
      const way = this.#cache && this.#tokens <= blockSize ? "cached" : "window", program = this.#programs[way];
      if (program) program.replay();
      else {
        this.#programs[way] = device.capture(() => {
          if (way === "cached") this.#choose(1, this.#cache);
          else this.#choose(blockSize);
        });
      }
    }
    this.#tokens++;
  }

  /** A forward pass over the last `length` tokens, and the choice of the next. */
  #choose(length: number, cache?: KeyValueCache): void {
    const { model } = this, { device, training, config: { vocabSize } } = model, { temperature, topK } = this.options;
    using _ = device.scope();
    const ring = this.#ring, count = this.#count, row = this.#row;
    const { ids } = launch(latest, { ring, count, ids: Tensor.empty(device, [1, length], "i32") });
    if (training) model.eval();
    const { logits } = noGrad(() => model.forward(ids, undefined, { cache })); // (1, 1, V)
    if (training) model.train();
    const noise = embedding(row, this.#noise); // its row, (1, V)
    const next = sample(logits.view([1, vocabSize]), noise, { temperature, topK });
    launch(append, { ids: next, ring, count });
    launch(advance, { counter: row }, { by: 1 });
  }

  [Symbol.dispose](): void {
    for (const program of Object.values(this.#programs)) program.dispose();
    for (const tensor of [this.#ring, this.#count, this.#noise, this.#row]) tensor.dispose();
    this.#cache?.dispose();
  }
}
