/** metrics.jsonl: a run's measurements, one JSON object per line. */
import { parseJson } from "../files/files.ts";
import { codeOf, system } from "../files/system.ts";

/** A logged update. */
export interface StepMetrics {
  /** Number of the update. */ readonly iter: number;
  /** Loss before the update, in nats per token: the last micro-batch's, or the weighted sum if the task sets weights. */
  readonly loss: number;
  /** Learning rate. */ readonly lr: number;
  /** Norm of the gradient before clipping. */ readonly grad_norm: number;
  /** Milliseconds per update, without evaluation. On a GPU, the mean over some updates. */ readonly ms: number;
  /** Training tokens per second. */ readonly tokens_per_second: number;
  /** Measurements of the task, such as `rewards/margins`. */ readonly [measure: string]: number;
}

/** An evaluation: means over `eval_iters` batches of each split. */
export interface EvaluationMetrics {
  /** Number of the update before which the evaluation was made. */ readonly iter: number;
  /** Training loss in nats per token. */ readonly train_loss: number;
  /** Validation loss in nats per token. */ readonly val_loss: number;
  /** Measurements of the task, such as `train_accuracy` and `val_accuracy`. */ readonly [measure: string]: number;
}

/** A line of metrics.jsonl. */
export type Metrics = StepMetrics | EvaluationMetrics;

/** Reads the lines of a metrics file. An incomplete last line, left by a process that was killed, is ignored. */
export async function readMetrics(path: string): Promise<Metrics[]> {
  const lines = new TextDecoder().decode(await system.readFile(path)).split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line));
}

/**
 * Removes the lines of a metrics file from iteration `iter` on; with `evaluated`, the evaluation of `iter` itself
 * stays. An incomplete last line is removed, too.
 */
export async function cutMetrics(path: string, iter: number, { evaluated }: { evaluated: boolean }): Promise<void> {
  const bytes = await system.readFile(path).catch((error) => {
    if (codeOf(error) === "ENOENT") return new Uint8Array();
    throw error;
  });
  let kept = 0;
  for (let end; (end = bytes.indexOf(0x0a, kept)) >= 0; kept = end + 1) {
    const line = parseJson(bytes.subarray(kept, end)) as Metrics | undefined;
    const stays = line && (line.iter < iter || evaluated && line.iter === iter && "val_loss" in line);
    if (!stays) break;
  }
  if (kept < bytes.length) await system.truncate(path, kept);
}
