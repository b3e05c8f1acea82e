/**
 * What `train` and `finetune` print: lines as in nanoGPT. On a terminal, a progress bar replaces the lines with the
 * loss.
 */
import type { RunFolder } from "../checkpoint/run_folder.ts";
import type { GPT } from "../gpt.ts";
import { endOfText } from "../data/tokenize_example.ts";
import { generate } from "../generate/generate.ts";
import { beginning, type Tokenizer } from "../tokenizer/tokenizer.ts";
import type { StepEvent, TrainEvent } from "../train/events.ts";
import type { Trainer } from "../train/trainer.ts";
import { type Running, taskCommand } from "./command.ts";
import type { FlagTable } from "./flags.ts";
import { modelDecoder } from "../generate/stopping.ts";
import { nativeHint } from "./native.ts";
import { bar, count, duration, type Progress, rate } from "./progress.ts";
import type { TrainValues } from "./train_flags.ts";
import { whyNarrow } from "./v8_flags.ts";

const SAMPLE_TOKENS = 300;

/** The state of a run when it begins or resumes. */
interface Beginning {
  readonly model: GPT;
  /** The iteration at which the run begins or resumes. */
  readonly iter: number;
  /** A line about the data. */
  readonly data: string;
  /** The size of an update, printed on one line with the device. */
  readonly update: string;
  readonly entropy?: number;
  /** The flag that a higher value of continues the training after its end. Default: `max_iters`. */
  readonly limit?: string;
}

/** How the sample at the end is made. */
interface Sampling {
  readonly prompt?: ArrayLike<number>;
  readonly chats?: boolean;
  readonly sampleTokens?: number;
}

export class TrainReport {
  #entropy: number | undefined;
  #began = 0;
  #firstIter = 0;
  #finished = false;
  /** The measures of the task that are printed with the loss. */
  #shown: readonly string[] = [];
  #best = { iter: 0, loss: Infinity };
  /** Bytes of memory that the run may use; undefined does not limit it. */
  readonly memory: number | undefined = undefined;
  /** Lines to print after an evaluation, such as a sample. */
  shown: (() => readonly string[]) | undefined;

  /** @param options.resumeCommand the shell command that resumes the run after an interruption */
  constructor(
    public values:
      & Pick<TrainValues, "out_dir" | "max_iters" | "eval_only" | "seed" | "device" | "native">
      & { readonly patience?: number },
    readonly options: { readonly task: "train" | "finetune"; readonly resumeCommand: string },
    readonly progress: Progress,
  ) {}

  note(line: string): void {
    this.progress.line(line);
  }

  begin({ model, iter, data, update, entropy, limit = "max_iters" }: Beginning): void {
    const { eval_only, max_iters, out_dir } = this.values, { device, config } = model;
    const parameters = model.numParameters();
    const size = parameters < 1e5 ? count(parameters) : `${(parameters / 1e6).toFixed(2)}M`;
    this.note(data);
    this.note(`vocab size: ${config.vocabSize}`);
    const { nLayer, nHead, nEmbd, blockSize } = config;
    this.note(
      `number of parameters: ${size} (layers ${nLayer}, heads ${nHead}, width ${nEmbd}, block size ${blockSize})`,
    );
    this.note(`${update}, device: ${device.description}`);
    const why = device.mode === "narrow" && whyNarrow();
    if (why) this.note(why);
    const hint = nativeHint(this.values, this.options.task);
    if (hint) this.note(hint);
    if (entropy !== undefined) {
      this.note(
        `entropy: ${entropy.toFixed(4)} nats per token, the lowest loss that a model can reach on this text`,
      );
    }
    if (iter > 0) this.note(`resuming ${out_dir} at iteration ${iter}`);
    if (iter > 0 && iter >= max_iters && !eval_only) {
      this.note(`max_iters=${max_iters} is reached: a higher --${limit} continues the training`);
    }
    this.#entropy = entropy;
    this.#firstIter = iter;
    this.#began = performance.now();
  }

  /** Prints notes about a resumed run. */
  resumed(trainer: Trainer, source: string, { otherData }: { otherData: boolean }): void {
    const { iter, optimizer } = trainer, { sinceBest = 0 } = trainer.state(), { patience } = this.values;
    if (patience && sinceBest >= patience) {
      this.note(
        `The run stopped early, after ${sinceBest} evaluations without a lower loss: a higher --patience continues the training`,
      );
    }
    if (otherData && !this.values.eval_only) {
      this.note(
        `${source} is not the data that this run was trained on before: the next evaluation counts as the best so far`,
      );
    }
    if (iter > 0 && optimizer.t === 0) this.note("The run has no optimizer state: AdamW's moments begin at zero");
  }

  /**
   * Trains until the end or until Ctrl-C, and prints the events.
   *
   * @returns the signal that Ctrl-C aborts, also after this call
   */
  async follow<T extends FlagTable>(
    trainer: Trainer,
    folder: RunFolder | undefined,
    { interruption }: Running<T>,
  ): Promise<AbortSignal> {
    const interrupt = interruption(() => this.interrupted());
    this.#shown = trainer.task.shown ?? [];
    for await (const event of trainer.run({ signal: interrupt })) this.event(event);
    if (interrupt.aborted) this.stopped(trainer.iter, folder?.last);
    else this.finished(folder?.last);
    return interrupt;
  }

  event(event: TrainEvent): void {
    if (event.kind === "evaluating") {
      this.progress.status(() => `step ${event.iter}: evaluating ${event.done}/${event.total}`);
    } else if (event.kind === "evaluation") {
      const { iter, trainLoss, valLoss, measures, best, sinceBest } = event, { patience } = this.values;
      if (best) this.#best = { iter, loss: valLoss };
      this.progress.end();
      const isShown = (name: string) => this.#shown.length === 0 || this.#shown.includes(name.replace(/^\w+?_/, ""));
      const more = Object.entries(measures).filter(([name]) => isShown(name))
        .map(([name, value]) => `, ${name.replace("_", " ")} ${value.toFixed(4)}`);
      const losses = `train loss ${trainLoss.toFixed(4)}, val loss ${valLoss.toFixed(4)}`;
      this.note(`step ${iter}: ${losses}${this.#beside()}${more.join("")}`);
      for (const line of this.shown?.() ?? []) this.note(line);
      if (patience && sinceBest >= patience) {
        this.note(`Stopping early: no lower loss in ${sinceBest} evaluations (--patience=${patience})`);
      }
    } else if (event.kind === "checkpoint") {
      this.note(`saved ${this.values.out_dir}/${event.name}${event.best ? ", the best so far" : ""}`);
    } else if (this.progress.terminal) {
      this.progress.status((columns) => bar(this.#state(event), columns));
    } else {
      const { iter, loss, ms, tokensPerSecond } = event, losses = `loss ${loss.toFixed(4)}${this.#beside()}`;
      const more = this.#measures(event).map((one) => `, ${one}`).join("");
      this.note(`iter ${iter}: ${losses}${more}, ${ms.toFixed(1)} ms, ${rate(tokensPerSecond)}`);
    }
  }

  interrupted(): void {
    if (!this.#finished) this.note("Stopping after this iteration, which will be saved. Ctrl-C again stops at once.");
  }

  /** @param last the name of the last checkpoint; undefined if there is none */
  stopped(iter: number, last: string | undefined): void {
    this.progress.end();
    if (last) this.note(`Stopped at iteration ${iter}. To continue:\n  ${this.options.resumeCommand}`);
    else this.note(`Stopped at iteration ${iter}: there was nothing to save yet.`);
  }

  finished(last: string | undefined): void {
    this.progress.end();
    this.#finished = true;
    const seconds = (performance.now() - this.#began) / 1000;
    const { iter, loss } = this.#best;
    // The evaluation before the first update saves no checkpoint.
    const unsaved = iter === 0 && !this.values.eval_only ? " (before training; that model is not saved)" : "";
    const best = Number.isFinite(loss)
      ? `lowest val loss ${loss.toFixed(4)} at step ${iter}${this.#beside()}${unsaved}, `
      : "";
    this.note(`Done: ${best}${duration(seconds)}${last ? `, in ${this.values.out_dir}` : ""}`);
  }

  /**
   * Prints a text that the model generates, up to the point where `signal` aborts.
   *
   * @param options.prompt tokens to continue, which are printed too; default: the token that begins a text
   * @param options.sampleTokens the most tokens to generate; default 300
   * @param options.chats whether the model was trained on conversations
   */
  async sample(
    model: GPT,
    tokenizer: Tokenizer,
    signal: AbortSignal,
    { prompt, chats = false, sampleTokens = SAMPLE_TOKENS }: Sampling = {},
  ): Promise<void> {
    const start = prompt ?? beginning(tokenizer), shown = prompt ? tokenizer.decode(prompt) : "";
    const eosTokenId = prompt && endOfText(tokenizer) || undefined, { seed } = this.values;
    const options = { maxNewTokens: sampleTokens, temperature: 0.8, topK: 200, seed, eosTokenId, signal };
    const decoder = modelDecoder(tokenizer);
    const tokens = await Array.fromAsync(generate(model.eval(), start, options), decoder.push);
    this.note(`\nA sample:\n${shown}${tokens.join("")}${decoder.end()}`);
    const next = taskCommand(chats ? "chat" : "sample", [`--out_dir=${this.values.out_dir}`]);
    this.note(`\n${chats ? "To chat with the model" : "To write more samples"}:\n  ${next}`);
  }

  #beside(): string {
    return this.#entropy === undefined ? "" : ` (entropy ${this.#entropy.toFixed(4)})`;
  }

  /** Measures as texts such as "kl 0.0312". */
  #measures({ measures = {} }: StepEvent): string[] {
    return this.#shown.filter((name) => name in measures).map((name) => `${name} ${measures[name].toFixed(4)}`);
  }

  #state(event: StepEvent) {
    const { iter, loss, tokensPerSecond } = event, total = this.values.max_iters;
    const more = this.#measures(event).map((one) => `  ${one}`).join("");
    const perIter = (performance.now() - this.#began) / 1000 / (iter + 1 - this.#firstIter);
    return { done: iter, total, loss, more, tokensPerSecond, left: perIter * (total - iter) };
  }
}
