/**
 * Turns the metrics of a running job into events, each of them once, although a restarted job reports earlier metrics
 * again.
 */
import type { Metrics } from "../checkpoint/metrics.ts";
import type { NewEvent, Store, StoredCheckpoint } from "./store.ts";

/** Approximate maximum number of a job's step events. A job with n times as many steps has an event for every nth. */
const MOST_STEPS = 1000;

export class Progressed {
  constructor(readonly store: Store, readonly job: string) {}

  /** Adds events for lines of metrics.jsonl. Lines that already have events are skipped. */
  metrics(lines: readonly Metrics[]): void {
    const { store, job } = this, { state } = store.job(job)!, { total = 0 } = state, events: NewEvent[] = [];
    let { steps, evaluations, tokens } = state, metrics = { ...state.metrics };
    const every = Math.max(1, Math.ceil(total / MOST_STEPS));
    for (const { iter, ...line } of lines) {
      const isStep = !("val_loss" in line);
      if (iter < (isStep ? steps : evaluations)) continue;
      const step = isStep ? iter + 1 : iter,
        { loss, train_loss, val_loss, lr, ms, tokens_per_second, ...more } = line as Record<string, number>;
      if (isStep) {
        steps = iter + 1;
        tokens += Math.round(ms * tokens_per_second / 1000);
        metrics = { train_loss: loss }; // the only metric of a checkpoint without an evaluation
        if (step % every !== 0 && step !== total) continue;
      } else {
        evaluations = iter + 1;
        metrics = { ...metrics, valid_loss: val_loss, full_valid_loss: val_loss };
      }
      const own = isStep
        ? { train_loss: loss, learning_rate: lr, tokens_per_second }
        : { train_loss, valid_loss: val_loss, full_valid_loss: val_loss };
      const losses = isStep ? `training loss=${loss.toFixed(4)}` : `validation loss=${val_loss.toFixed(4)}`;
      events.push({
        ...{ level: "info", type: "metrics", message: `Step ${step}/${total}: ${losses}` },
        data: { step, total_steps: total, ...own, ...more },
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
