/** What `train` prints: plain lines as nanoGPT's, and on a terminal a bar instead of those with the loss. */
import type { LoadedData } from "../data/load_data.ts";
import type { GPT } from "../gpt.ts";
import { generate } from "../generate/generate.ts";
import { beginning, type Tokenizer } from "../tokenizer/tokenizer.ts";
import type { TrainEvent } from "../train/events.ts";
import type { Trainer } from "../train/trainer.ts";
import { taskCommand } from "./command.ts";
import { modelDecoder } from "../generate/stopping.ts";
import { nativeHint } from "./native.ts";
import { bar, count, duration, type Progress, rate } from "./progress.ts";
import type { TrainValues } from "./train_flags.ts";
import { whyNarrow } from "./v8_flags.ts";

const SAMPLE_TOKENS = 300;

export class TrainReport {
  #entropy: number | undefined;
  #began = 0;
  #firstIter = 0;
  #finished = false;
  #best = { iter: 0, loss: Infinity };

  /** @param resumeCommand what to type to go on after an interruption */
  constructor(public values: TrainValues, readonly resumeCommand: string, readonly progress: Progress) {}

  note(line: string): void {
    this.progress.line(line);
  }

  /** @param iter where the run begins or goes on */
  begin({ source, entropy, data, model, iter }: LoadedData & { model: GPT; iter: number }): void {
    const { batch_size, block_size, gradient_accumulation_steps, n_layer, n_head, n_embd } = this.values;
    const { eval_only, max_iters, out_dir } = this.values;
    const { train, val } = data, { device, config } = model;
    const parameters = model.numParameters();
    const size = parameters < 1e5 ? count(parameters) : `${(parameters / 1e6).toFixed(2)}M`;
    this.note(`${source}: train has ${count(train.length)} tokens, val has ${count(val.length)} tokens`);
    this.note(`vocab size: ${config.vocabSize}`);
    this.note(
      `number of parameters: ${size} (layers ${n_layer}, heads ${n_head}, width ${n_embd}, block size ${block_size})`,
    );
    const tokens = gradient_accumulation_steps * batch_size * block_size;
    this.note(`tokens per iteration will be: ${count(tokens)}, device: ${device.description}`);
    const why = device.mode === "narrow" && whyNarrow();
    if (why) this.note(why);
    const hint = nativeHint(this.values, "train");
    if (hint) this.note(hint);
    if (entropy !== undefined) {
      this.note(
        `entropy: ${entropy.toFixed(4)} nats a character, the lowest loss that any model of this text can have`,
      );
    }
    if (iter > 0) this.note(`resuming ${out_dir} at iteration ${iter}`);
    if (iter > 0 && iter >= max_iters && !eval_only) {
      this.note(`max_iters=${max_iters} is reached: a higher --max_iters trains it further`);
    }
    this.#entropy = entropy;
    this.#firstIter = iter;
    this.#began = performance.now();
  }

  /** What is worth knowing of a run that goes on, beside where. */
  resumed({ iter, optimizer }: Trainer, source: string, { otherData }: { otherData: boolean }): void {
    if (otherData && !this.values.eval_only) {
      this.note(`${source} is not what this run was trained on before: the best checkpoint is found anew`);
    }
    if (iter > 0 && optimizer.t === 0) this.note("There is no optimizer state: AdamW's moments begin at zero");
  }

  event(event: TrainEvent): void {
    if (event.kind === "evaluating") {
      this.progress.status(() => `step ${event.iter}: evaluating ${event.done}/${event.total}`);
    } else if (event.kind === "evaluation") {
      const { iter, trainLoss, valLoss, best } = event;
      if (best) this.#best = { iter, loss: valLoss };
      this.progress.end();
      this.note(`step ${iter}: train loss ${trainLoss.toFixed(4)}, val loss ${valLoss.toFixed(4)}${this.#beside()}`);
    } else if (event.kind === "checkpoint") {
      this.note(`saved ${this.values.out_dir}/${event.name}${event.best ? ", the best so far" : ""}`);
    } else if (this.progress.terminal) {
      this.progress.status((columns) => bar(this.#state(event), columns));
    } else {
      const { iter, loss, ms, tokensPerSecond } = event;
      this.note(
        `iter ${iter}: loss ${loss.toFixed(4)}${this.#beside()}, ${ms.toFixed(1)} ms, ${rate(tokensPerSecond)}`,
      );
    }
  }

  interrupted(): void {
    if (!this.#finished) this.note("Stopping as soon as the iteration is done and saved; Ctrl-C again leaves at once.");
  }

  /** @param last the name of the last checkpoint, where there is one */
  stopped(iter: number, last: string | undefined): void {
    this.progress.end();
    if (last) this.note(`Stopped at iteration ${iter}. To go on:\n  ${this.resumeCommand}`);
    else this.note(`Stopped at iteration ${iter}: there was nothing to save yet.`);
  }

  finished(last: string | undefined): void {
    this.progress.end();
    this.#finished = true;
    const seconds = (performance.now() - this.#began) / 1000;
    const { iter, loss } = this.#best;
    const best = Number.isFinite(loss) ? `lowest val loss ${loss.toFixed(4)} at step ${iter}${this.#beside()}, ` : "";
    this.note(`Done: ${best}${duration(seconds)}${last ? `, in ${this.values.out_dir}` : ""}`);
  }

  /** Shows what the model writes now, as far as it comes before `signal` aborts. */
  async sample(model: GPT, tokenizer: Tokenizer, signal: AbortSignal): Promise<void> {
    const options = { maxNewTokens: SAMPLE_TOKENS, temperature: 0.8, topK: 200, seed: this.values.seed, signal };
    const start = beginning(tokenizer);
    const decoder = modelDecoder(tokenizer);
    const tokens = await Array.fromAsync(generate(model.eval(), start, options), decoder.push);
    const { out_dir } = this.values;
    this.note(
      `\nA sample:\n${tokens.join("")}${decoder.end()}\n\nMore of them:\n  ${
        taskCommand("sample", [`--out_dir=${out_dir}`])
      }`,
    );
  }

  #beside(): string {
    return this.#entropy === undefined ? "" : ` (entropy ${this.#entropy.toFixed(4)})`;
  }

  #state({ iter, loss, tokensPerSecond }: TrainEvent & { kind: "step" }) {
    const total = this.values.max_iters;
    const perIter = (performance.now() - this.#began) / 1000 / (iter + 1 - this.#firstIter);
    return { done: iter, total, loss, tokensPerSecond, left: perIter * (total - iter) };
  }
}
