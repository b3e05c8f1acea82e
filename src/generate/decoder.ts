/**
 * Decoding: forward passes, one a token, of one or more sequences that go on from the same prompt.
 *
 * The next token is chosen on the device and goes into the next forward pass without a detour over the host, which reads some
 * of them at a time. Where the caller chooses, the logits of each token are read back for it.
 *
 * Up to the block size a key-value cache makes a token cost one token's work. Beyond it the window slides as nanoGPT's does,
 * and every token costs a whole forward pass, because each position in the window has changed; or, where that is asked for,
 * the later half of the window becomes a new beginning. Each kind of pass is captured with its first token, and replayed for
 * the others.
 */
import { advance, append, latest } from "../../kernels/tokens/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { launch } from "../engine/launch.ts";
import type { KeyValueCache } from "../nn/cache.ts";
import { Captured } from "../nn/captured.ts";
import { layOutWeights } from "../nn/linear.ts";
import { evaluating } from "../nn/module.ts";
import { embedding } from "../ops/embedding.ts";
import { sample } from "../ops/sample.ts";
import { Pace } from "../loop/pace.ts";
import { damagedLogits } from "./logits_processors.ts";
import { isGreedy } from "./sampling_rules.ts";
import type { GeneratorState, RandomGenerator } from "../random/mod.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Milliseconds from one reading to the next, so that text flows, and the most tokens that are read at a time. */
const PACE = 60, MOST = 64;

export interface DecoderOptions {
  /** Divides the logits; 0 takes the likeliest. */
  readonly temperature?: number;
  /** Sample from the k most likely tokens (ties with the k-th included); 0, the default, is all of them. */
  readonly topK?: number;
  /** Draws the noise. */
  readonly generator: RandomGenerator;
  /** How many sequences; default 1. */
  readonly batch?: number;
  /** What is done with the oldest tokens past the block size; default crop. */
  readonly overflow?: "crop" | "slide";
  /** Chooses instead of the device: from logits (B, V), row by row, the id of each sequence's next token. */
  readonly choose?: (logits: NumberArray) => readonly number[];
}

/** What a pass reads: the prompt, or one token behind the cache; the whole window, or its later half, without. */
type Pass = "prompt" | "token" | "window" | "half";

export class Decoder implements Disposable {
  /** How many tokens of the last {@linkcode next} were used. */
  taken = 0;
  /** (B, S) i32: token number n lies at n mod S. */
  readonly #ring: Tensor;
  /** (1) i32: how many tokens there are. */
  readonly #count: Tensor;
  /** (MOST, B·V): noise for one token of each sequence a row; and (1) i32, the next token's row. */
  readonly #noise: Tensor;
  readonly #row: Tensor;
  readonly #cache: KeyValueCache | undefined;
  /** (B) i32: what the caller chose, where he does. */
  readonly #chosen: Tensor | undefined;
  readonly #batch: number;
  readonly #programs: Partial<Record<Pass, Captured<Tensor | undefined>>> = {};
  /** As {@linkcode #count}. */
  #tokens: number;
  /** How many tokens are in the cache. */
  #held = 0;
  readonly #pace: Pace;
  readonly #drawn: Float32Array;
  /**
   * RandomGenerator state before the last {@linkcode next} drew its noise, and how many tokens that noise was for;
   * {@linkcode putBack} rewinds to it.
   */
  #before: { state: GeneratorState; tokens: number } | undefined;

  /** @param prompt token ids, of which the model sees the last ones where they are more than the block size */
  constructor(readonly model: GPT, prompt: readonly number[], readonly options: DecoderOptions) {
    const { device, config: { blockSize, vocabSize } } = model, { batch = 1, overflow, choose } = options;
    const seen = prompt.slice(-blockSize),
      most = device.readsAtOnce || choose ? 1 : Math.max(1, Math.floor(MOST / batch));
    const S = Math.max(blockSize, most), ring = new Int32Array(batch * S);
    for (let b = 0; b < batch; b++) ring.set(seen, b * S);
    this.#pace = new Pace(PACE, most);
    this.#batch = batch;
    this.#drawn = new Float32Array(choose ? 1 : most * batch * vocabSize).fill(1);
    this.#tokens = seen.length;
    using scope = device.scope(); // what does not fit leaves nothing behind
    this.#ring = device.tensor(ring, [batch, S], { dtype: "i32" });
    this.#count = device.tensor([seen.length], [1], { dtype: "i32" });
    this.#noise = device.tensor(this.#drawn, choose ? [1, 1] : [most, batch * vocabSize]);
    this.#row = device.tensor([0], [1], { dtype: "i32" });
    this.#chosen = choose && device.tensor(new Int32Array(batch), [batch], { dtype: "i32" });
    this.#cache = prompt.length <= blockSize || overflow === "slide" ? model.createCache(batch) : undefined;
    scope.keepAll();
    layOutWeights(model);
  }

  /** The next tokens, one for each sequence; of these at least one and at most `most`. */
  async next(most: number): Promise<(readonly number[])[]> {
    const { choose } = this.options, { device } = this.model, B = this.#batch;
    if (choose) return [await this.#chosenBy(choose)];
    const count = Math.min(most, this.#pace.steps);
    this.#pace.begin();
    this.#draw(count);
    for (let i = 0; i < count; i++) this.#advance();
    const ring = await device.read(this.#ring.storage), S = ring.length / B, steps: number[][] = [];
    if (count === this.#pace.steps) this.#pace.waited();
    for (let n = this.#tokens - count; n < this.#tokens; n++) {
      const ids: number[] = [];
      for (let b = 0; b < B; b++) {
        const id = ring[b * S + n % S];
        if (id < 0) throw damagedLogits(NaN);
        ids.push(id);
      }
      steps.push(ids);
    }
    return steps;
  }

  async #chosenBy(choose: NonNullable<DecoderOptions["choose"]>): Promise<readonly number[]> {
    const { device } = this.model, logits = this.#advance()!, values = await device.read(logits.storage);
    if (!Object.values(this.#programs).some(({ program }) => program?.result === logits)) logits.dispose();
    const ids = choose(values);
    device.write(this.#chosen!.storage, ids);
    launch(append, { ids: this.#chosen!, ring: this.#ring, count: this.#count });
    return ids;
  }

  /** Puts the generator where it would be if noise had been drawn only for the tokens that were taken. */
  putBack(): void {
    const { generator, temperature = 1 } = this.options, { vocabSize } = this.model.config;
    if (!this.#before || this.taken === this.#before.tokens || temperature === 0) return;
    generator.setState(this.#before.state);
    for (let i = 0; i < this.taken; i++) generator.exponential(this.#drawn.subarray(0, this.#batch * vocabSize));
    this.#before = undefined;
  }

  /** Noise for the next tokens. */
  #draw(count: number): void {
    const { generator, temperature = 1 } = this.options, { device, config: { vocabSize } } = this.model;
    const V = this.#batch * vocabSize;
    this.#before = { state: generator.getState(), tokens: count };
    this.taken = 0;
    device.write(this.#row.storage, [0]);
    if (temperature === 0) return;
    for (let i = 0; i < count; i++) generator.exponential(this.#drawn.subarray(i * V, (i + 1) * V));
    device.write(new Storage(this.#noise.storage.block, count * V), this.#drawn.subarray(0, count * V));
  }

  /** Chooses one more token, on the device, or gives its logits to whoever chooses. */
  #advance(): Tensor | undefined {
    const { blockSize } = this.model.config, half = Math.max(1, blockSize >> 1), pass = this.#pass();
    const length = { prompt: this.#tokens, token: 1, window: blockSize, half }[pass];
    if (pass === "half") {
      this.#cache!.reset();
      this.#held = 0;
    }
    if (pass !== "window") this.#held += length;
    this.#tokens++;
    const choose = () => this.#choose(length, pass === "window" ? undefined : this.#cache);
    if (pass === "prompt") return choose(); // once: not worth a program
    const captured = this.#programs[pass] ??= new Captured(this.model), { program } = captured;
    if (!program) return captured.capture(this.model.device, choose);
    program.replay();
    return program.result;
  }

  #pass(): Pass {
    if (!this.#cache) return "window";
    if (this.#held === 0) return "prompt";
    if (this.#held < this.model.config.blockSize) return "token";
    return this.options.overflow === "slide" ? "half" : "window";
  }

  /** A forward pass over the last `length` tokens, and the choice of the next, or the logits for it. */
  #choose(length: number, cache?: KeyValueCache): Tensor | undefined {
    const { model } = this, { device, config: { vocabSize } } = model, B = this.#batch;
    const { temperature = 1, topK } = this.options;
    using scope = device.scope();
    const ring = this.#ring, count = this.#count, row = this.#row;
    const { ids } = launch(latest, { ring, count, ids: device.empty([B, length], { dtype: "i32" }) });
    const { logits } = evaluating(model, () => noGrad(() => model.forward(ids, undefined, { cache }))); // (B, 1, V)
    if (this.options.choose) return scope.keep(logits);
    const noise = embedding(row, this.#noise).alias([B, vocabSize]); // its row, (1, B·V)
    const next = sample(logits.alias([B, vocabSize]), noise, {
      temperature: isGreedy(temperature) ? 0 : temperature,
      topK,
    });
    launch(append, { ids: next, ring, count });
    launch(advance, { counter: row }, { by: 1 });
  }

  [Symbol.dispose](): void {
    for (const captured of Object.values(this.#programs)) captured[Symbol.dispose]();
    for (const tensor of [this.#ring, this.#count, this.#noise, this.#row]) tensor.dispose();
    this.#chosen?.dispose();
    this.#cache?.dispose();
  }
}
