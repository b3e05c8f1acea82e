/**
 * Proximal policy optimisation of a language model, as Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155) tune theirs and TRL's
 * PPOTrainer does. An iteration:
 *
 * 1. The policy writes a completion of each of some prompts, and rewards score them.
 * 2. Policy, reference and value function say what they think of every token, in the passes that updates make, too: so the first
 *    update's ratios are 1. What each token was worth comes of it (returns.ts).
 * 3. Some epochs go over the completions in minibatches, each an update of policy and value function together (ppo_loss.ts).
 *
 * The score counts at a completion's last token, or one place after it, as in TRL. Dropout is off in all passes. With PPO-ptx the
 * policy goes on learning blocks of a text beside it, so that it does not forget how to write others.
 */
import { Epochs } from "../data/epochs.ts";
import { getBatch } from "../data/batch.ts";
import { paddedLengths } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, ConfigError, TrainingError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { evaluating, type Module } from "../nn/module.ts";
import { add } from "../ops/add.ts";
import { concat } from "../ops/concat.ts";
import { mul } from "../ops/mul.ts";
import { RandomGenerator } from "../random/mod.ts";
import { Trained } from "../train/micro_steps.ts";
import type { DrawOptions, LossAndOutputs, Measures, MicroBatch, Task, TaskState } from "../train/task.ts";
import { adaptersOf } from "./lora.ts";
import { CapturedPasses, ReferencePolicy, rowArrays, type TokenBatch, tokenLogprobs } from "./policy.ts";
import {
  type Iteration,
  iterationFromJSON,
  iterationMeasures,
  iterationToJSON,
  LENGTHS,
  meanKl,
  total,
  updateArrays,
} from "./ppo_iteration.ts";
import { PROXIMAL_MEASURES, type ProximalBatch, proximalLoss } from "./ppo_loss.ts";
import { adaptedKlCoef, returnsOf, type ScoredText } from "./returns.ts";
import type { ProximalOptions } from "./ppo_options.ts";
import {
  checkPrompts,
  identityOf,
  type PromptSplits,
  type RolloutPrompt,
  type RolloutSample,
  sampleOf,
  scoreRollouts,
} from "./prompts.ts";
import { Roller, type Rollout } from "./rollouts.ts";
import { type ValueFunction, ValueHead } from "./value.ts";

/** The tensors of a pass, and of an update. */
type Seen = Readonly<Record<string, Tensor>> & TokenBatch;
type Updated = Readonly<Record<string, Tensor>> & ProximalBatch;

/** What the host knows of completions. */
const EVALUATED = ["objective/scores", "objective/kl", LENGTHS] as const;

/**
 * Trains a policy by rewards, with a penalty for leaving its reference.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { plainReward, ProximalPolicy } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), sizes = { vocabSize: 5, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 16 };
 * const policy = new GPT(sizes, { device }), reference = new GPT(sizes, { device }).freeze(); // of the same seed
 * const fours = plainReward("fours", ({ ids, from }) => ids.subarray(from).filter((id) => id === 4).length);
 * const prompts = [0, 1, 2, 3].map((id) => ({ ids: Int32Array.of(id), prompt: "" })), decode = (ids: Int32Array) => ids.join(" ");
 * const options = { batchSize: 16, maxNewTokens: 4, reference, rewards: [fours], decode };
 * using task = new ProximalPolicy(policy, { train: prompts, val: prompts }, options);
 * const run = { maxIters: 60, evalInterval: 60, evalIters: 1, gradientAccumulationSteps: 1, learningRate: 1e-2, decayLr: false };
 * using trainer = new Trainer(policy, task, { ...run, finalEvaluation: true });
 * let fewest = 0;
 * for await (const event of trainer.run()) if (event.kind === "evaluation") fewest = -event.valLoss;
 * assert(fewest > 3); // of 4
 * device.close();
 * ```
 */
export class ProximalPolicy implements Task, Disposable {
  /** Completions are the policy's of the moment. */ readonly ahead = false;
  /** What a run that goes on has to agree in. */ readonly config: NonNullable<Task["config"]>;
  /** The value function. */ readonly module: ValueFunction & Module;
  /** As TRL names them. */ readonly measures: readonly string[];
  readonly shown = ["objective/scores", "objective/kl", "policy/entropy_avg", "policy/clipfrac_avg", LENGTHS];
  /** Of the last evaluation: the first held-out prompt's completion. */ sample: RolloutSample | undefined;
  readonly #options: ProximalOptions;
  readonly #epochs: Epochs;
  readonly #rows: number;
  readonly #roller: Roller;
  readonly #passes: CapturedPasses;
  readonly #lengths: readonly number[];
  #klCoef: number;
  /** Iterations that are over. */
  #done = 0;
  /** Updates of the iteration that were made. */
  #update = 0;
  #iteration: Iteration | undefined;
  #measured: Measures = {};

  /**
   * A task before its first iteration.
   *
   * @throws {DataError} when there are no prompts, or one leaves no room for a completion
   * @throws {ConfigError} when a number is out of its range, there is no reward, or the reference is of another kind of model
   */
  constructor(readonly model: GPT, readonly prompts: PromptSplits, options: ProximalOptions) {
    const { maxNewTokens, batchSize, seed = 1337, shuffle, reference, scoreAt = "end" } = options;
    const { microBatches = 1, miniBatches = 1, epochs = 4 } = options, { blockSize } = model.config;
    for (const [name, value] of Object.entries({ batchSize, microBatches, miniBatches, epochs, maxNewTokens })) {
      if (Number.isSafeInteger(value) && value > 0) continue;
      throw new ConfigError(`PPO: ${name} is ${value}; expected a whole number above 0`);
    }
    if (options.rewards.length === 0) throw new ConfigError("PPO: there is no reward to learn from");
    checkPrompts("PPO", prompts, { blockSize, maxNewTokens });
    this.#options = { ...options, microBatches, miniBatches, epochs, seed, scoreAt };
    this.#rows = batchSize * microBatches * miniBatches;
    this.#klCoef = options.klCoef ?? 0.05;
    this.#epochs = new Epochs(prompts.train.length, { seed, shuffle });
    const longest = Math.max(...[...prompts.train, ...prompts.val].map(({ ids }) => ids.length));
    this.#lengths = paddedLengths(longest + maxNewTokens);
    this.module = options.value ?? new ValueHead(model);
    this.measures = options.pretraining ? [...PROXIMAL_MEASURES, "loss/ptx_avg"] : PROXIMAL_MEASURES;
    this.config = { name: "PPO", completions: this.#rows, epochs, miniBatches, scoreAt };
    const { temperature } = options;
    let policy: ReferencePolicy | undefined;
    this.#passes = new CapturedPasses(new Trained(model, this), (batch) => {
      const { logprobs, values } = this.#pass(model, batch);
      policy ??= new ReferencePolicy(model, typeof reference === "function" ? reference() : reference);
      const frozen = policy.run((model) => tokenLogprobs(model, batch as Seen, { temperature }).logprobs);
      return concat([logprobs, frozen, values], { axis: 0 }); // (3B, T)
    });
    this.#roller = new Roller(model, options);
  }

  /** Micro-batches of updates in a pass over the prompts, or completions of an evaluation in batches. */
  microBatches(split: "train" | "val"): number {
    const { microBatches, miniBatches, epochs, batchSize } = this.#options;
    if (split === "val") return Math.ceil(this.prompts.val.length / batchSize);
    return Math.ceil(this.prompts.train.length / this.#rows) * epochs! * miniBatches! * microBatches!;
  }

  /** Of an iteration. */
  get #updates(): number {
    return this.#options.epochs! * this.#options.miniBatches!;
  }

  /** The micro-batches of the next minibatch; before the first of an iteration its completions are written and scored. */
  async *draw({ signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { miniBatches, epochs, batchSize } = this.#options;
    const iteration = this.#iteration ??= await this.#begin(signal), count = this.#rows / miniBatches!;
    const epoch = Math.floor(this.#update / miniBatches!), place = this.#update % miniBatches! * count;
    const order = new RandomGenerator(this.#options.seed! + this.#done * epochs! + epoch).randperm(this.#rows);
    const rows = order.subarray(place, place + count);
    const tokens = total(rows, (row) => iteration.returns[row].advantages.length);
    const places = total(rows, (row) => iteration.returns[row].returns.length);
    for (let at = 0; at < count; at += batchSize) {
      const some = rows.subarray(at, at + batchSize), options = { ...this.#shape(iteration.rollouts), tokens, places };
      const arrays = updateArrays(iteration, some, options);
      yield { weight: 1, arrays: { ...arrays, ...this.#pretraining(at / batchSize) } };
    }
    this.#update++;
    if (this.#update < this.#updates) return;
    const { klTarget: target, klHorizon: horizon = 10000 } = this.#options, kl = meanKl(iteration);
    if (target) this.#klCoef = adaptedKlCoef({ klCoef: this.#klCoef, target, horizon }, { kl, texts: this.#rows });
    [this.#iteration, this.#update, this.#done] = [undefined, 0, this.#done + 1];
  }

  /** What {@linkcode drawn} tells stays until the next iteration, of which all updates are. */
  async #begin(signal?: AbortSignal): Promise<Iteration> {
    const { seed, maxKl = 50 } = this.#options, { train } = this.prompts, before = this.#epochs.state();
    try {
      const prompts = Array.from({ length: this.#rows }, () => train[this.#epochs.next()]);
      const { iteration, measured } = await this.#written(prompts, {
        first: this.#done * this.#rows,
        seed: seed!,
        signal,
      });
      const kl = meanKl(iteration);
      if (!(kl <= maxKl)) {
        throw new TrainingError(
          `The policy is ${kl.toPrecision(3)} nats a text away from its reference, and the most is ${maxKl}; ` +
            "a greater kl_coef, a lower learning rate or fewer epochs may help",
        );
      }
      this.#measured = { ...measured, episode: (this.#done + 1) * this.#rows, kl_coef: this.#klCoef };
      return iteration;
    } catch (error) {
      this.#epochs.restore(before, "");
      throw error;
    }
  }

  /** Writes completions, and asks everybody about them. */
  async #written(
    prompts: readonly RolloutPrompt[],
    { seed, first, signal }: { readonly seed: number; readonly first: number; readonly signal?: AbortSignal },
  ) {
    const { rewards, decode, missingEndPenalty = 0, eosTokenId } = this.#options;
    const rollouts = await this.#roller.roll(prompts.map(({ ids }) => ids), { seed, first, signal });
    const { total: plain, each } = await scoreRollouts(rollouts, { prompts, rewards, decode, eosTokenId, signal });
    const scores = plain.map((score, i) => rollouts[i].ended ? score : score - missingEndPenalty);
    const texts = await this.#scored(rollouts, scores, signal);
    const iteration = this.#complete(rollouts, texts), measured = iterationMeasures(iteration, this.#klCoef);
    if (eosTokenId === undefined) delete measured["val/num_eos_tokens"];
    const mean = (list: Float64Array) => list.reduce((a, b) => a + b) / list.length;
    if (rewards.length > 1) {
      for (const [name, all] of Object.entries(each)) measured[`rewards/${name}/mean`] = mean(all);
    }
    return { iteration, scores, measured };
  }

  /** What policy, reference and value function say of completions, in batches of the shape that updates have. */
  async #scored(rollouts: readonly Rollout[], scores: Float64Array, signal?: AbortSignal): Promise<ScoredText[]> {
    const { batchSize, scoreAt, maxNewTokens } = this.#options, texts: ScoredText[] = [];
    const shape = this.#shape(rollouts), [T] = shape.lengths;
    for (let at = 0; at < rollouts.length; at += batchSize) {
      signal?.throwIfAborted();
      const some = rollouts.slice(at, at + batchSize), found = await this.#passes.run(rowArrays(some, shape));
      for (const [row, { ids, from }] of some.entries()) {
        const count = ids.length - from, more = scoreAt === "behind" && count < maxNewTokens ? 1 : 0;
        const part = (which: number, count: number) => {
          const begin = (which * batchSize + row) * T + from - 1;
          return found.slice(begin, begin + count);
        };
        const [logprobs, reference, values] = [part(0, count), part(1, count), part(2, count + more)];
        texts.push({ logprobs, reference, values, score: scores[at + row] });
      }
    }
    return texts;
  }

  #complete(rollouts: readonly Rollout[], texts: readonly ScoredText[]): Iteration {
    return { rollouts, texts, returns: returnsOf(texts, { ...this.#options, klCoef: this.#klCoef }) };
  }

  /** Of all batches of an iteration: one, so that a completion is always seen by a pass of the same shape. */
  #shape(rollouts: readonly Rollout[]) {
    const longest = Math.max(...rollouts.map(({ ids }) => ids.length)),
      length = this.#lengths.find((length) => length >= longest) ?? longest;
    return { lengths: [length], batchSize: this.#options.batchSize, vocabSize: this.model.config.vocabSize };
  }

  /** Blocks of the pre-training text, those of this update and micro-batch. */
  #pretraining(micro: number): MicroBatch["arrays"] {
    const { pretraining, microBatches, seed } = this.#options;
    if (!pretraining) return {};
    const { tokens, batchSize } = pretraining, { blockSize, vocabSize } = this.model.config;
    const number = (this.#done * this.#updates + this.#update) * microBatches! + micro;
    const { x, y } = getBatch(tokens, { blockSize, batchSize, generator: new RandomGenerator(seed! + number) });
    const like = { shape: [batchSize, blockSize], range: [0, vocabSize - 1] } as const;
    return {
      pretrainingTokens: { values: x, ...like },
      pretrainingTargets: { values: y, ...like },
      pretrainingShare: { values: Float32Array.of(1 / microBatches!), shape: [] },
    };
  }

  #pass(model: GPT, batch: Readonly<Record<string, Tensor>>) {
    const { tokens, targets } = batch, { temperature } = this.#options;
    return evaluating(model, () =>
      evaluating(this.module, () => {
        const hidden = model.hidden(tokens); // (B, T, C)
        const said = tokenLogprobs(model, { tokens, targets, hidden }, { temperature });
        return { ...said, values: this.module.values(hidden, tokens) };
      }));
  }

  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    using scope = model.device.scope();
    const { loss, outputs } = proximalLoss(this.#pass(model, batch), batch as Updated, this.#options);
    const { pretrainingTokens: tokens, pretrainingTargets: targets, pretrainingShare: share } = batch;
    if (!tokens) return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
    const beside = mul(evaluating(model, () => model.forward(tokens, targets)).loss, share);
    const coef = model.device.tensor([this.#options.pretraining!.coef], []);
    return {
      loss: scope.keep(add(loss, mul(beside, coef))),
      outputs: scope.keep(concat([outputs, beside.alias([1])], { axis: 0 })),
    };
  }
  /** What is known of the completions that the last update learned from. */
  drawn(): Measures {
    return this.#measured;
  }

  /** Completions of the first prompts of a part, the same random streams in each evaluation. */
  async *evaluate(split: "train" | "val", { count, signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { batchSize, seed } = this.#options,
      from = split === "val" ? this.prompts.train.length : 0;
    const all = this.prompts[split].slice(0, count * batchSize);
    for (let at = 0; at < all.length; at += batchSize) {
      const prompts = all.slice(at, at + batchSize);
      const { iteration, scores, measured } = await this.#written(prompts, { seed: ~seed!, first: from + at, signal });
      if (split === "val" && at === 0) {
        this.sample = sampleOf(iteration.rollouts[0], scores[0], { ...this.#options, prompts });
      }
      const values = Float32Array.from(EVALUATED, (name) => measured[name]);
      const loss = { values: Float32Array.of(-values[0]), shape: [] };
      yield { weight: prompts.length, arrays: { loss, measured: { values, shape: [values.length] } } };
    }
  }
  /** The loss of an evaluation is minus the mean score, so that the best checkpoint is the one with the highest. */
  judge(_: GPT, { loss, measured }: Readonly<Record<string, Tensor>>): LossAndOutputs {
    return { loss, outputs: measured };
  }
  measure(outputs: NumberArray): Measures {
    return Object.fromEntries(EVALUATED.map((name, i) => [name, outputs[i]]));
  }

  /** A task on another model, one that only counts, which writes texts and has micro-batches of every shape: for the memory that they take. */
  rehearsal(model: GPT): Task {
    const all = [...this.prompts.train, ...this.prompts.val];
    const longest = all.reduce((a, b) => b.ids.length > a.ids.length ? b : a);
    const reference = () => adaptersOf(model).at(-1) ?? model, value = this.module.like(model);
    const task = new ProximalPolicy(model, { train: [longest], val: [longest] }, {
      ...this.#options,
      reference,
      value,
    });
    const { module, measures, ahead } = task, draw = () => task.#rehearse(this.#lengths);
    const loss: Task["loss"] = (model, batch) => task.loss(model, batch);
    return { ahead, module, measures, draw, evaluate: draw, loss, state: () => ({}), restore() {} };
  }
  async *#rehearse(lengths: readonly number[]): AsyncGenerator<MicroBatch> {
    const { batchSize, maxNewTokens } = this.#options, [{ ids }] = this.prompts.train;
    await this.#roller.roll(Array<Int32Array>(batchSize).fill(ids), { seed: 0, first: 0 });
    for (const length of lengths) {
      const rollout = {
        ids: new Int32Array(length),
        from: Math.max(1, length - maxNewTokens),
        ended: true,
        promptIndex: 0,
      };
      const rollouts = Array<Rollout>(batchSize).fill(rollout), shape = { ...this.#shape(rollouts), lengths: [length] };
      const iteration = this.#complete(rollouts, await this.#scored(rollouts, new Float64Array(batchSize)));
      const arrays = updateArrays(iteration, rollouts.keys().toArray(), { ...shape, tokens: 1, places: 1 });
      yield { weight: 1, arrays: { ...arrays, ...this.#pretraining(0) } };
    }
  }

  /** Of the prompts of both parts. */
  identity(): Record<keyof PromptSplits, TokensIdentity> {
    return { train: identityOf(this.prompts.train), val: identityOf(this.prompts.val) };
  }

  /** The place among the prompts, and all of an iteration that is under way: what was written, and what was said of it. */
  state(): TaskState {
    return {
      ...this.#epochs.state(),
      prompts: this.prompts.train.length,
      iterations: this.#done,
      updates: this.#update,
      klCoef: this.#klCoef,
      ...this.#iteration && { ...iterationToJSON(this.#iteration), measured: this.#measured },
    };
  }
  /** Goes on in the middle of an iteration; with another number of prompts, at their beginning after it. */
  restore({ epoch, place, prompts, ...saved }: Readonly<Record<string, unknown>>, path: string): void {
    const { iterations, updates, klCoef, rollouts, measured } = saved, updatesIn = this.#updates;
    const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && Number(n) >= 0;
    const valid = isCount(iterations) && isCount(updates) && updates < updatesIn && typeof klCoef === "number" &&
      Number.isFinite(klCoef) && (updates === 0 || rollouts !== undefined);
    if (!valid) throw new CheckpointError(`${path} is damaged: its iteration is not valid`);
    this.#epochs.restore({ epoch, place: prompts === this.prompts.train.length ? place : 0 }, path);
    [this.#done, this.#update, this.#klCoef, this.#iteration] = [iterations, updates, klCoef, undefined];
    if (rollouts === undefined) return;
    const { written, texts } = iterationFromJSON(saved, { count: this.#rows, path });
    this.#iteration = this.#complete(written, texts);
    this.#measured = isObject(measured) ? measured as Measures : {};
  }

  /** Frees what completions are written and scored with; the value function is the caller's. */
  [Symbol.dispose](): void {
    this.#roller[Symbol.dispose]();
    this.#passes[Symbol.dispose]();
  }
}
