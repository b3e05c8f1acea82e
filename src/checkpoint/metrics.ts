/** metrics.jsonl: what a run has measured, one JSON object a line. */
import { parseJson } from "../files/files.ts";
import { codeOf, system } from "../files/system.ts";

/** A logged iteration; `ms` are those of that one iteration, without evaluation. What the task measures stands beside these. */
export interface StepMetrics {
  /** The update's number. */ readonly iter: number;
  /** Nats a token, of the last micro-batch. */ readonly loss: number;
  /** Learning rate. */ readonly lr: number;
  /** Before clipping. */ readonly grad_norm: number;
  /** Milliseconds of the update. */ readonly ms: number;
  /** Over those milliseconds. */ readonly tokens_per_second: number;
  /** What the task measures besides: `rewards/margins`. */ readonly [measure: string]: number;
}

/** An evaluation: means over `eval_iters` batches of each split, nats a token. */
export interface EvaluationMetrics {
  /** The update before which it was made. */ readonly iter: number;
  /** In nats a token. */ readonly train_loss: number;
  /** In nats a token. */ readonly val_loss: number;
  /** What the task measures besides: `train_accuracy`, `val_accuracy`. */ readonly [measure: string]: number;
}

/** A line of metrics.jsonl. */
export type Metrics = StepMetrics | EvaluationMetrics;

/** The file's lines, but for one that the end of a process has torn. */
export async function readMetrics(path: string): Promise<Metrics[]> {
  const lines = new TextDecoder().decode(await system.readFile(path)).split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line));
}

/**
 * Shortens the file at `path` to what came before iteration `iter`, and its evaluation if `evaluated`. A line that the end of
 * a process has torn goes too.
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
