/**
 * Proximal policy optimisation (PPO) of a language model, as in InstructGPT (Ouyang et al. 2022, arXiv:2203.02155) and
 * TRL's PPOTrainer. One iteration:
 *
 * 1. The policy writes a completion of each of several prompts, and rewards score the completions.
 * 2. A forward pass computes the value and the log-probabilities under policy and reference of every token. Updates run
 *    the same pass, so the ratios of the first update are exactly 1. Advantages and returns follow (returns.ts).
 * 3. Several epochs go over the completions in minibatches. Each minibatch is one update of the policy and the value
 *    function together (ppo_loss.ts).
 *
 * The score is added to the reward of a completion's last token, or of the position after it, as in TRL. Dropout is off
 * in all passes.
 *
 * With PPO-ptx (option `pretraining`), the policy also learns blocks of a text in every update, so that it does not
 * forget other kinds of text.
 */
import { getBatch } from "../data/batch.ts";
import { paddedLength } from "../data/token_rows.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import { add, concat, mul } from "../ops/mod.ts";
import { RandomGenerator } from "../random/mod.ts";
import { Trained } from "../train/micro_steps.ts";
import type { DrawOptions, LossAndOutputs, Measures, MicroBatch, Task, TaskState } from "../train/task.ts";
import { spread } from "./advantages.ts";
import { adaptersOf } from "./lora.ts";
import { CapturedPasses, ReferencePolicy, rowArrays, tokenLogprobs } from "./policy.ts";
import {
  type Iteration,
  iterationFromJSON,
  iterationMeasures,
  iterationToJSON,
  meanKl,
  updateArrays,
} from "./ppo_iteration.ts";
import { PROXIMAL_MEASURES, type ProximalBatch, proximalLoss } from "./ppo_loss.ts";
import { adaptedKlCoef, returnsOf, type ScoredText } from "./returns.ts";
import type { ProximalOptions } from "./ppo_options.ts";
import type { PromptSplits, RolloutPrompt } from "./prompts.ts";
import { type Answers, MEAN_LENGTH, RolloutTask } from "./rollout_task.ts";
import { isCount, type RollOptions, type Rollout } from "./rollouts.ts";
import { type ValueFunction, ValueHead } from "./value.ts";

type Complete =
  & ProximalOptions
  & Required<Pick<ProximalOptions, "microBatches" | "miniBatches" | "epochs" | "seed" | "scoreAt">>;

/** The measures that an evaluation reports. */
const EVALUATED = ["objective/scores", "objective/kl", MEAN_LENGTH] as const;

/**
 * A task that trains a policy by rewards with PPO, with a penalty for its distance from a reference policy.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { plainReward, ProximalPolicy } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), sizes = { vocabSize: 5, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 16 };
 * const policy = new GPT(sizes, { device }), reference = new GPT(sizes, { device }).freeze(); // equal weights: both have the default seed
 * const fours = plainReward("fours", ({ ids, from }) => ids.subarray(from).filter((id) => id === 4).length);
 * const prompts = [0, 1, 2, 3].map((id) => ({ ids: Int32Array.of(id), prompt: "" })), decode = (ids: Int32Array) => ids.join(" ");
 * const options = { batchSize: 16, maxNewTokens: 4, reference, rewards: [fours], decode };
 * using task = new ProximalPolicy(policy, { train: prompts, val: prompts }, options);
 * const run = { maxIters: 60, evalInterval: 60, evalIters: 1, gradientAccumulationSteps: 1, learningRate: 1e-2, decayLr: false };
 * using trainer = new Trainer(policy, task, { ...run, finalEvaluation: true });
 * let fewest = 0;
 * for await (const event of trainer.run()) if (event.kind === "evaluation") fewest = -event.valLoss;
 * assert(fewest > 3); // a completion has at most four tokens
 * device.close();
 * ```
 */
export class ProximalPolicy extends RolloutTask {
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  readonly config: NonNullable<Task["config"]>;
  /** The value function. */ override readonly module: ValueFunction;
  /** TRL's names of the measures of an update. */ readonly measures: readonly string[];
  /** The measures that a progress line shows. */
  readonly shown = ["objective/scores", "objective/kl", "policy/entropy_avg", "policy/clipfrac_avg", MEAN_LENGTH];
  /** @internal */ protected readonly judged = EVALUATED;
  readonly #options: Complete;
  /** The number of completions in an iteration. */
  readonly #rows: number;
  readonly #passes: CapturedPasses;
  /** The number of updates in an iteration. */
  readonly #updates: number;
  #klCoef: number;
  /** The number of finished iterations. */
  #done = 0;
  /** The number of updates made in the current iteration. */
  #update = 0;
  #iteration: Iteration | undefined;
  #measured: Measures = {};

  /**
   * Creates the task.
   *
   * @throws {DataError} when there are no prompts, or a prompt leaves no room for a completion
   * @throws {ConfigError} when a number is out of its range, there is no reward, or the reference does not fit the
   *   policy
   */
  constructor(model: GPT, prompts: PromptSplits, options: ProximalOptions) {
    const { microBatches = 1, miniBatches = 1, epochs = 4, seed = 1337, scoreAt = "end", maxKl = 50 } = options;
    const counts = { microBatches, miniBatches, epochs }, updates = epochs * miniBatches;
    const rows = options.batchSize * microBatches * miniBatches, { reference } = options;
    const iteration = { prompts: rows, microBatches: updates * microBatches };
    super(model, prompts, { ...options, maxKl, counts, iteration });
    this.#options = { ...options, ...counts, seed, scoreAt };
    this.#rows = rows;
    this.#updates = updates;
    this.#klCoef = options.klCoef ?? 0.05;
    this.module = options.value ?? new ValueHead(model);
    this.measures = options.pretraining ? [...PROXIMAL_MEASURES, "loss/ptx_avg"] : PROXIMAL_MEASURES;
    this.config = { name: "PPO", completions: rows, epochs, miniBatches, scoreAt };
    const { temperature } = options, against = new ReferencePolicy(model, reference);
    this.#passes = new CapturedPasses(new Trained(model, this), (batch) => {
      const { logprobs, values } = this.#pass(model, batch);
      const { tokens, targets } = batch;
      const frozen = against.run((model) => tokenLogprobs(model, { tokens, targets }, { temperature }).logprobs);
      return concat([logprobs, frozen, values], { axis: 0 }); // (3B, T)
    });
  }

  /**
   * Draws the micro-batches of the next minibatch. At the start of an iteration, completions are written and scored
   * first.
   */
  async *draw({ signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { miniBatches, epochs, batchSize } = this.#options;
    const iteration = this.#iteration ??= await this.begin((prompts) => this.#write(prompts, signal));
    const count = this.#rows / miniBatches;
    const epoch = Math.floor(this.#update / miniBatches), place = this.#update % miniBatches * count;
    const order = new RandomGenerator(this.#options.seed + this.#done * epochs + epoch).randperm(this.#rows);
    const rows = order.subarray(place, place + count);
    const all = (of: "advantages" | "returns") =>
      spread(Array.from(rows, (row) => iteration.returns[row][of].length)).sum;
    const [tokens, places] = [all("advantages"), all("returns")];
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

  /**
   * Starts an iteration: writes and scores its completions. All updates of the iteration learn from these completions,
   * so {@linkcode drawn} returns equal measures for all of them.
   */
  async #write(prompts: readonly RolloutPrompt[], signal?: AbortSignal): Promise<Iteration> {
    const how = { first: this.#done * this.#rows, seed: this.#options.seed, signal };
    const { iteration, measured } = await this.#answer(prompts, how);
    this.checkKl(meanKl(iteration));
    this.#measured = { ...measured, episode: (this.#done + 1) * this.#rows, kl_coef: this.#klCoef };
    return iteration;
  }

  /** @internal */
  protected override answer(prompts: readonly RolloutPrompt[], how: RollOptions): Promise<Answers> {
    return this.#answer(prompts, how);
  }
  /** Writes completions, scores them, and computes their log-probabilities, values, advantages and measures. */
  async #answer(prompts: readonly RolloutPrompt[], how: RollOptions) {
    const { rewards, missingEndPenalty = 0, eosTokenId } = this.#options;
    const { rollouts, scores: { total: plain, each } } = await this.write(prompts, how);
    const scores = plain.map((score, i) => rollouts[i].ended ? score : score - missingEndPenalty);
    const texts = await this.#scored(rollouts, scores, how.signal);
    const iteration = this.#complete(rollouts, texts), measured = iterationMeasures(iteration, this.#klCoef);
    if (eosTokenId === undefined) delete measured["val/num_eos_tokens"];
    if (rewards.length > 1) {
      for (const [name, all] of Object.entries(each)) measured[`rewards/${name}/mean`] = spread(all).mean;
    }
    return { rollouts, scores, measured, iteration };
  }

  /** Log-probabilities and values of completions, computed in batches of the same shape as in updates. */
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

  /**
   * The shape of the batches of an iteration. All have the same shape, so that a completion's log-probabilities have the
   * same bits in every pass.
   */
  #shape(rollouts: readonly Rollout[]) {
    const length = paddedLength(Math.max(...rollouts.map(({ ids }) => ids.length)), this.lengths);
    return { lengths: [length], batchSize: this.#options.batchSize, vocabSize: this.model.config.vocabSize };
  }

  /** The blocks of the pre-training text for micro-batch number `micro` of the current update. */
  #pretraining(micro: number): MicroBatch["arrays"] {
    const { pretraining, microBatches, seed } = this.#options;
    if (!pretraining) return {};
    const { tokens, batchSize } = pretraining, { blockSize, vocabSize } = this.model.config;
    const number = (this.#done * this.#updates + this.#update) * microBatches + micro;
    const { x, y } = getBatch(tokens, { blockSize, batchSize, generator: new RandomGenerator(seed + number) });
    const like = { shape: [batchSize, blockSize], range: [0, vocabSize - 1] } as const;
    return {
      pretrainingTokens: { values: x, ...like },
      pretrainingTargets: { values: y, ...like },
      pretrainingShare: { values: Float32Array.of(1 / microBatches), shape: [] },
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

  /**
   * The loss of policy and value function over a micro-batch, with the loss of the pre-training text if there is one.
   */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    using scope = model.device.scope();
    const { loss, outputs } = proximalLoss(
      this.#pass(model, batch),
      batch as typeof batch & ProximalBatch,
      this.#options,
    );
    const { pretrainingTokens: tokens, pretrainingTargets: targets, pretrainingShare: share } = batch;
    if (!tokens) return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
    const beside = mul(evaluating(model, () => model.forward(tokens, targets)).loss, share);
    const coef = model.device.tensor([this.#options.pretraining!.coef], []);
    return {
      loss: scope.keep(add(loss, mul(beside, coef))),
      outputs: scope.keep(concat([outputs, beside.alias([1])], { axis: 0 })),
    };
  }
  /** Measures of the completions that the latest update learned from. */
  drawn(): Measures {
    return this.#measured;
  }

  /**
   * A task for estimating memory on `model`, whose device only counts: it writes completions and has micro-batches of
   * every possible shape.
   */
  rehearsal(model: GPT): Task {
    const reference = adaptersOf(model).at(-1) ?? model, value = this.module.like(model), { longest } = this;
    const options = { ...this.#options, reference, value };
    const task = new ProximalPolicy(model, { train: [longest], val: [longest] }, options);
    return task.rehearsed(() => task.#rehearse());
  }
  async *#rehearse(): AsyncGenerator<MicroBatch> {
    await this.roller.rehearse(this.longest.ids, this.#rows);
    for (const rollouts of this.empty) {
      const texts = await this.#scored(rollouts, new Float64Array(rollouts.length)), shape = this.#shape(rollouts);
      const arrays = updateArrays(this.#complete(rollouts, texts), rollouts.keys().toArray(), {
        ...shape,
        tokens: 1,
        places: 1,
      });
      yield { weight: 1, arrays: { ...arrays, ...this.#pretraining(0) } };
    }
  }

  /** The position in the prompts and the current iteration: completions, log-probabilities, values, scores. */
  override state(): TaskState {
    return {
      ...super.state(),
      iterations: this.#done,
      updates: this.#update,
      klCoef: this.#klCoef,
      ...this.#iteration && { ...iterationToJSON(this.#iteration), measured: this.#measured },
    };
  }
  /**
   * Continues in the middle of an iteration. If the number of prompts has changed, the next iteration starts at the
   * beginning of an epoch.
   */
  override restore(saved: Readonly<Record<string, unknown>>, path: string): void {
    const { iterations, updates, klCoef, rollouts, measured } = saved;
    const valid = isCount(iterations) && isCount(updates) && updates < this.#updates && typeof klCoef === "number" &&
      Number.isFinite(klCoef) && (updates === 0 || rollouts !== undefined);
    if (!valid) throw new CheckpointError(`${path} is damaged: its iteration is not valid`);
    super.restore(saved, path);
    [this.#done, this.#update, this.#klCoef, this.#iteration] = [iterations, updates, klCoef, undefined];
    if (rollouts === undefined) return;
    const { written, texts } = iterationFromJSON(saved, { count: this.#rows, path });
    this.#iteration = this.#complete(written, texts);
    this.#measured = isObject(measured) ? measured as Measures : {};
  }

  /** Frees the buffers for writing and scoring completions. The caller still owns the value function. */
  override [Symbol.dispose](): void {
    super[Symbol.dispose]();
    this.#passes[Symbol.dispose]();
  }
}
