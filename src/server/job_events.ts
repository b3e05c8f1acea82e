/**
 * Turns the metrics of a running job into events, each of them once, although a restarted job reports earlier metrics
 * again.
 */
import type { Metrics } from "../checkpoint/metrics.ts";
import type { NewEvent, Store, StoredCheckpoint } from "./store.ts";

/** Approximate maximum number of a job's step events. A job with n times as many steps has an event for every nth. */
const MOST_STEPS = 1000;

/** The loss and the accuracy of a step or of an evaluation, under OpenAI's names. An evaluation reads all of its file. */
function measured(line: Record<string, number>): Record<string, number> {
  const { loss, val_loss, mean_token_accuracy: train, val_mean_token_accuracy: valid } = line;
  if (val_loss === undefined) {
    return { train_loss: loss, ...train !== undefined && { train_mean_token_accuracy: train } };
  }
  const accuracy = valid !== undefined && { valid_mean_token_accuracy: valid, full_valid_mean_token_accuracy: valid };
  return { valid_loss: val_loss, full_valid_loss: val_loss, ...accuracy };
}

export class Progressed {
  constructor(readonly store: Store, readonly job: string) {}

  /** Adds events for lines of metrics.jsonl. Lines that already have events are skipped. */
  metrics(lines: readonly Metrics[]): void {
    const { store, job } = this, { state } = store.job(job)!, { total = 0 } = state, events: NewEvent[] = [];
    let { steps, evaluations, tokens } = state, metrics = { ...state.metrics };
    const every = Math.max(1, Math.ceil(total / MOST_STEPS));
    for (const { iter, ...rest } of lines) {
      const line = rest as Record<string, number>, isStep = !("val_loss" in line), of = measured(line);
      if (iter < (isStep ? steps : evaluations)) continue;
      const step = isStep ? iter + 1 : iter,
        { loss, train_loss, val_loss, lr, ms, tokens_per_second, ...others } = line,
        { mean_token_accuracy: _, val_mean_token_accuracy: __, ...more } = others;
      if (isStep) {
        steps = iter + 1;
        tokens += Math.round(ms * tokens_per_second / 1000);
        metrics = of; // a checkpoint without an evaluation has no others
        if (step % every !== 0 && step !== total) continue;
      } else {
        evaluations = iter + 1;
        metrics = { ...metrics, ...of };
      }
      const own = isStep ? { learning_rate: lr, tokens_per_second } : { train_loss };
      const losses = isStep ? `training loss=${loss.toFixed(4)}` : `validation loss=${val_loss.toFixed(4)}`;
      events.push({
        ...{ level: "info", type: "metrics", message: `Step ${step}/${total}: ${losses}` },
        data: { step, total_steps: total, ...of, ...own, ...more },
      });
    }
    store.together(() => store.change(job, { steps, evaluations, tokens, metrics, starts: 0 }, events));
  }

  checkpoint(checkpoint: StoredCheckpoint): void {
    const { store, job } = this, { step } = checkpoint, message = `Checkpoint created at step ${step}`;
    store.together(() => {
      store.addCheckpoint(checkpoint);
      store.change(job, {}, [{ level: "info", type: "message", message, data: { step } }]);
    });
  }
}
