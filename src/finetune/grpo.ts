/**
 * GRPO and RLOO: policy gradients from groups of completions, with TRL's options and defaults. The policy writes
 * several completions of each prompt, which are scored; a completion becomes more probable the more its score exceeds
 * the scores of its group (advantages.ts, policy_loss.ts).
 *
 * An iteration begins by writing `batchSize` · `stepsPerGeneration` completions and learns from them `numIterations`
 * times. The completions are part of the state, so a run can be resumed between two updates of an iteration.
 *
 * Differences from TRL: Dropout is off. Rows are padded on the right, so the lengths of prompts may differ. The old
 * log-probabilities come from the same computation as the update's, so the first ratios are exactly 1. As in TRL, RLOO
 * subtracts β · KL of the whole completion from its reward, and GRPO adds β · KL of each token to the loss.
 *
 * @see https://huggingface.co/docs/trl/grpo_trainer
 * @see https://huggingface.co/docs/trl/rloo_trainer
 */
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { concat, mul, reshape, sum } from "../ops/mod.ts";
import { RandomGenerator } from "../random/mod.ts";
import type { DrawOptions, LossAndOutputs, Measures, MicroBatch, Task, TaskState } from "../train/task.ts";
import { spread } from "./advantages.ts";
import {
  groupArrays,
  type Iteration,
  iterationFromJSON,
  iterationToJSON,
  judgeGroups,
  levelOf,
} from "./group_batches.ts";
import { type CompleteOptions, completeOptions, type PolicyGradientOptions } from "./group_options.ts";
import { adaptersOf } from "./lora.ts";
import { ReferencePolicy, Scorer, tokenLogprobs } from "./policy.ts";
import { CLIP_MEASURES, policyLoss } from "./policy_loss.ts";
import type { PromptSplits, RolloutPrompt } from "./prompts.ts";
import { type Answers, MEAN_LENGTH, RolloutTask } from "./rollout_task.ts";
import { isCount, type RollOptions } from "./rollouts.ts";

/**
 * A task that trains a policy by the rewards of its completions with GRPO or RLOO.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { plainReward, PolicyGradient } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 4, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 16 }, { device });
 * const prompts = [{ ids: Int32Array.of(0), prompt: "a" }];
 * const task = new PolicyGradient(model, { train: prompts, val: prompts }, {
 *   rewards: [plainReward("bs", ({ completion }) => completion.split("b").length - 1)],
 *   decode: (ids) => Array.from(ids, (id) => "abcd"[id]).join(""),
 *   maxNewTokens: 4,
 *   batchSize: 32,
 * });
 * const options = { gradientAccumulationSteps: 1, maxIters: 60, evalInterval: 60, evalIters: 1, learningRate: 0.02, decayLr: false };
 * using trainer = new Trainer(model, task, { ...options, warmupIters: 0, finalEvaluation: true });
 * const rewards: number[] = [];
 * for await (const event of trainer.run()) if (event.kind === "evaluation") rewards.push(-event.valLoss);
 * assert(rewards[1] > 3.5); // at most 4 are possible; a new model writes about 1
 * device.close();
 * ```
 */
export class PolicyGradient extends RolloutTask {
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  readonly config: NonNullable<Task["config"]>;
  /** TRL's names of the measures over the tokens of an update. */ readonly measures: readonly string[];
  /** The measures that a progress line shows. */ readonly shown: readonly string[];
  /** @internal */ protected readonly judged = ["reward", MEAN_LENGTH];
  readonly #options: CompleteOptions;
  readonly #scorer: Scorer;
  #reference: Scorer | undefined;
  /** Completions written so far. */
  #written = 0;
  /** Tokens of all completions written so far, with their prompts. */
  #tokens = 0;
  #iteration: Iteration | undefined;

  /**
   * Creates the task.
   * @param model the policy
   * @param prompts each must leave room for `maxNewTokens` tokens in the block size
   * @throws {DataError} when a split has no prompts, or a prompt leaves no room
   * @throws {ConfigError} when options contradict each other
   * @throws {DeviceError} when the keys and values of not even one completion fit into memory
   */
  constructor(model: GPT, prompts: PromptSplits, options: PolicyGradientOptions) {
    const all = completeOptions(options), { batchSize, stepsPerGeneration, numGenerations, numIterations } = all;
    super(model, prompts, {
      ...all,
      counts: { stepsPerGeneration, numGenerations, numIterations },
      iteration: {
        prompts: batchSize * stepsPerGeneration / numGenerations,
        microBatches: numIterations * stepsPerGeneration,
      },
    });
    this.#options = all;
    const { maxNewTokens, beta, temperature } = all, isGrpo = all.method === "grpo", inLoss = isGrpo && beta !== 0;
    this.config = {
      name: isGrpo ? "GRPO" : "RLOO",
      ...{ batchSize, stepsPerGeneration, numGenerations, numIterations, maxNewTokens, beta },
    };
    this.measures = [...inLoss ? ["kl"] : [], "entropy", ...CLIP_MEASURES];
    this.shown = ["reward", ...options.reference ? ["kl"] : [], "entropy", CLIP_MEASURES[2], MEAN_LENGTH];
    this.#scorer = new Scorer(model, { batchSize, maxLength: this.lengths.at(-1)!, temperature });
  }

  /** Draws the next micro-batches. At the start of an iteration, completions are written and scored first. */
  async *draw({ count, signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { stepsPerGeneration, numIterations } = this.#options;
    if (stepsPerGeneration % count !== 0) {
      throw new ConfigError(
        `stepsPerGeneration is ${stepsPerGeneration}; expected a multiple of gradientAccumulationSteps, which is ${count}`,
      );
    }
    if (!this.#iteration || this.#iteration.drawn >= stepsPerGeneration * numIterations) {
      this.#iteration = await this.begin((prompts) => this.#write(prompts, count, signal));
    }
    const { drawn } = this.#iteration;
    if (drawn % count !== 0) {
      throw new ConfigError(
        `gradientAccumulationSteps is ${count}, but the current iteration has reached micro-batch ${drawn}; expected a divisor of ${drawn}`,
      );
    }
    for (let i = 0; i < count; i++) yield this.#microBatch(this.#iteration, this.#iteration.drawn++, count);
  }

  /** Writes and scores the completions of an iteration. */
  async #write(taken: readonly RolloutPrompt[], count: number, signal?: AbortSignal): Promise<Iteration> {
    const { stepsPerGeneration, numGenerations, numIterations, seed } = this.#options;
    const prompts = taken.flatMap((prompt) => Array<RolloutPrompt>(numGenerations).fill(prompt));
    const { rollouts, scores } = await this.write(prompts, { seed, first: this.#written, signal });
    // A micro-batch mixes completions of all prompts. The old log-probabilities are computed in the micro-batches of the
    // updates. So they have the same bits as in the updates, even if a device's results depend on the rows of a batch.
    const order = new RandomGenerator(seed + this.#written).randperm(prompts.length);
    const score = async (scorer: Scorer | undefined) => {
      const found = await scorer?.logprobs(Array.from(order, (i) => rollouts[i]), { signal });
      const by = found && new Array<Float32Array>(prompts.length);
      found?.forEach((one, place) => by![order[place]] = one);
      return by;
    };
    const known = numIterations > 1 || stepsPerGeneration > count || this.#options.reference !== undefined;
    const old = await score(known ? this.#scorer : undefined), reference = await score(this.#referenceScorer);
    const { advantages, measures, kl } = judgeGroups({ rollouts, old, reference }, scores, this.#options);
    this.checkKl(kl);
    this.#written += prompts.length;
    this.#tokens += rollouts.reduce((sum, { ids }) => sum + ids.length, 0);
    const sorted = <T>(all: ArrayLike<T>) => Array.from(order, (i) => all[i]);
    return {
      rollouts: sorted(rollouts),
      advantages: sorted(advantages),
      old: old && sorted(old),
      reference: reference && sorted(reference),
      measures: { ...measures, num_tokens: this.#tokens },
      drawn: 0,
    };
  }

  /** @internal */
  protected override async answer(prompts: readonly RolloutPrompt[], how: RollOptions): Promise<Answers> {
    const { rollouts, scores: { total: scores } } = await this.write(prompts, how);
    const lengths = rollouts.map(({ ids, from }) => ids.length - from);
    return { rollouts, scores, measured: { reward: spread(scores).mean, [MEAN_LENGTH]: spread(lengths).mean } };
  }

  get #referenceScorer(): Scorer | undefined {
    const { reference, batchSize, temperature } = this.#options;
    if (!reference) return undefined;
    const options = { batchSize, maxLength: this.lengths.at(-1)!, temperature };
    return this.#reference ??= new Scorer(new ReferencePolicy(this.model, reference), options);
  }

  #microBatch(iteration: Iteration, number: number, count: number): MicroBatch {
    const { batchSize, stepsPerGeneration } = this.#options, { vocabSize } = this.model.config;
    const batch = { at: number % stepsPerGeneration * batchSize, batchSize, lengths: this.lengths, vocabSize };
    return { weight: 1 / count, arrays: groupArrays(iteration, batch, this.#options) };
  }

  /**
   * The loss of a micro-batch. Its value is about 0 until the policy differs from the policy that wrote the completions;
   * only its gradient matters.
   */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    const { epsilon, epsilonHigh, delta, temperature, beta, useBiasCorrectionKl: biasCorrection } = this.#options;
    using scope = model.device.scope();
    const { tokens, targets, old, reference, against, share, pool, mean, low, high, texts } = batch;
    const { logprobs, entropy } = tokenLogprobs(model, { tokens, targets }, { temperature });
    const { loss, clipped, kl } = policyLoss(
      { logprobs, old, reference, against, share, pool, mean, low, high, texts },
      { level: levelOf(this.#options), epsilon, epsilonHigh, delta, beta, biasCorrection },
    );
    const outputs = concat([...kl ? [kl] : [], reshape(sum(mul(entropy, mean)), [1]), clipped], { axis: 0 });
    return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
  }
  /** Measures of the completions, under TRL's names: rewards, lengths, KL. */
  drawn(): Measures {
    return this.#iteration!.measures;
  }

  /** The position in the prompts, and the current iteration. */
  override state(): TaskState {
    const { stepsPerGeneration, numIterations } = this.#options, iteration = this.#iteration;
    const underWay = iteration && iteration.drawn < stepsPerGeneration * numIterations;
    return {
      ...super.state(),
      completions: this.#written,
      completionTokens: this.#tokens,
      iteration: underWay ? iterationToJSON(iteration) : null,
    };
  }
  /**
   * Continues in the middle of an iteration. If the number of prompts has changed, the next iteration starts at the
   * beginning of an epoch.
   */
  override restore(state: Readonly<Record<string, unknown>>, path: string): void {
    const { completions, completionTokens, iteration } = state;
    if (!isCount(completions) || !isCount(completionTokens)) {
      throw new CheckpointError(`${path} is damaged: its counts of completions and their tokens are not valid`);
    }
    super.restore(state, path);
    [this.#written, this.#tokens] = [completions, completionTokens];
    const { batchSize, stepsPerGeneration } = this.#options, length = batchSize * stepsPerGeneration;
    this.#iteration = iteration === null ? undefined : iterationFromJSON(iteration, { length, path });
  }

  /**
   * A task for estimating memory on `model`, whose device only counts: it writes completions and has micro-batches of
   * every possible shape.
   */
  rehearsal(model: GPT): Task {
    const { batchSize, stepsPerGeneration, reference, numIterations } = this.#options, { longest } = this;
    const own = reference && (adaptersOf(model).at(-1) ?? model);
    const task = new PolicyGradient(model, { train: [longest], val: [longest] }, { ...this.#options, reference: own });
    const scores = own !== undefined || numIterations > 1 || stepsPerGeneration > 1, texts = task.empty;
    const batches = texts.map((rollouts) => {
      const numbers = rollouts.map(({ ids, from }) => new Float32Array(ids.length - from));
      const known = { old: scores ? numbers : undefined, reference: own && numbers, measures: {}, drawn: 0 };
      return task.#microBatch({ rollouts, advantages: numbers.map(() => 1), ...known }, 0, texts.length);
    });
    const draw = async function* () {
      await task.roller.rehearse(longest.ids, batchSize * stepsPerGeneration);
      for (const rollouts of scores ? texts : []) {
        for (const scorer of [task.#scorer, task.#referenceScorer]) await scorer?.logprobs(rollouts);
      }
      yield* batches;
    };
    return task.rehearsed(draw, () => batches);
  }

  /** Frees the buffers for writing and scoring completions. The model, the rewards and the reference are not freed. */
  override [Symbol.dispose](): void {
    super[Symbol.dispose]();
    this.#scorer[Symbol.dispose]();
    this.#reference?.[Symbol.dispose]();
  }
}
