/** Translates a client's request into a command with flags, and a job's error into a message for the client. */
import { endOfText } from "../data/tokenize_example.ts";
import type { Grader } from "./graders.ts";
import type { ServedModel } from "./engine_api.ts";
import type { JobOrder } from "./job_messages.ts";
import type { JobRequest } from "./job_request.ts";
import type { RowsFound } from "./job_rows.ts";
import type { WireError } from "./messages.ts";
import type { JobState } from "./store.ts";

export type Method = JobRequest["method"]["type"];

/** Learning rates by method. An adapter is trained at ten times the rate. */
const RATES: Record<Method, { readonly weights: number; readonly adapter: number }> = {
  supervised: { weights: 2e-5, adapter: 2e-4 },
  dpo: { weights: 1e-6, adapter: 1e-5 },
  reinforcement: { weights: 1e-6, adapter: 1e-5 },
};
const TEXT_RATE = 3e-5;
const EPOCHS: Record<Method, number> = { supervised: 3, dpo: 1, reinforcement: 1 };
const RANK = 8, ROWS = 8;
/** Number of answers that are sampled and compared for each prompt, before it is multiplied by `compute_multiplier`. */
const GENERATIONS = 8;

/** The inputs of a job's plan. */
export interface PlanInput {
  readonly request: JobRequest;
  /** The job's folder. */ readonly folder: string;
  /** The model to fine-tune and its path; undefined if a new model is trained. */
  readonly model?: { readonly served: Pick<ServedModel, "tokenizer" | "template">; readonly path: string };
  /** The grader's reward model. */ readonly scorer?: string;
  /** Paths of the training and evaluation data, and what was found in the training data. */
  readonly train: string;
  readonly val?: string;
  readonly found: RowsFound;
  readonly threads: number;
}

/** A hyperparameter's value; undefined if it is `auto`. */
const given = (request: JobRequest, name: string): number | undefined => {
  const { method: { type, ...method } } = request, own = method[type] as { hyperparameters?: Record<string, unknown> };
  const value = own?.hyperparameters?.[name] ?? request.hyperparameters[name];
  return typeof value === "number" ? value : undefined;
};

/** Returns the command for a request, and its hyperparameters with values for `auto`. */
export function planJob(input: PlanInput): Required<Pick<JobState, "order" | "resolved">> {
  const { request, folder, model, train, val, found, threads } = input, { method: { type } } = request;
  const rate = given(request, "learning_rate_multiplier") ?? 1, epochs = given(request, "n_epochs");
  const batch = given(request, "batch_size"), interval = given(request, "eval_interval");
  const always = { ...{ seed: request.seed, threads, log_interval: 1, always_save_checkpoint: true } };
  const hyper = (n_epochs: number | "auto", batch_size: number | "auto") => ({
    n_epochs,
    batch_size,
    learning_rate_multiplier: rate,
  });
  const every = interval !== undefined && { eval_interval: interval };
  if (found.rows === 0 || !model) { // the training data is a text
    const size = batch !== undefined && { batch_size: batch }, text = { ...always, ...every, input: train };
    if (!model) {
      const config = request.model.slice("new:".length), values = { ...text, ...size };
      return {
        order: { command: "train", config, rate, epochs, values, folder, base: request.model },
        resolved: hyper(epochs ?? "auto", batch ?? "auto"),
      };
    }
    const own = { batch_size: batch ?? ROWS, gradient_accumulation_steps: 1, eval_interval: 250, eval_iters: 20 };
    const values = { ...own, ...text, init_from: model.path, learning_rate: TEXT_RATE * rate };
    return {
      order: { command: "train", epochs: epochs ?? EPOCHS[type], values, folder, base: request.model },
      resolved: hyper(epochs ?? EPOCHS[type], own.batch_size),
    };
  }
  const rank = given(request, "lora_rank") ?? RANK,
    rows = batch ?? (type === "reinforcement" ? 1 : Math.min(ROWS, found.rows));
  const n_epochs = epochs ?? EPOCHS[type];
  const values = {
    ...{ ...always, ...every, data: train, ...val && { eval_data: val }, init_from: model.path },
    ...{ num_train_epochs: n_epochs, batch_size: rows },
    learning_rate: RATES[type][rank > 0 ? "adapter" : "weights"] * rate,
    ...rank > 0 && { lora_rank: rank, lora_targets: "all-linear" },
    ...found.chats && !model.served.template && { template: "chatml" },
    ...methodFlags(input, rows),
  };
  const { grader } = request.method.reinforcement as { readonly grader?: Grader } ?? {};
  const scored = grader?.type === "score_model" ? { ...grader, path: input.scorer } : grader;
  const order: JobOrder = { command: "finetune", values, folder, base: request.model, ...scored && { grader: scored } };
  return { order, resolved: { ...hyper(n_epochs, rows), lora_rank: rank } };
}

function methodFlags({ request, model, found }: PlanInput, rows: number): Record<string, unknown> {
  const { type } = request.method;
  if (type === "supervised") return { task: "sft" };
  if (type === "dpo") return { task: "dpo", beta: given(request, "beta") ?? 0.1 };
  const multiplier = given(request, "compute_multiplier") ?? 1;
  const generations = Math.min(64, Math.max(2, Math.round(GENERATIONS * multiplier)));
  const ends = found.chats || endOfText(model!.served.tokenizer) !== null;
  return {
    ...{ task: "grpo", reward: "grader", num_generations: generations, batch_size: rows * generations },
    ...!ends && { fixed_length: true, max_completion_length: 32 },
  };
}

/** The error codes of a failed job by class of error. Errors of these classes have messages that a client may see. */
const CODES: Readonly<Record<string, readonly [code: string, param: string | null]>> = {
  DataError: ["invalid_training_file", "training_file"],
  ConfigError: ["invalid_configuration", null],
  DeviceError: ["insufficient_resources", null],
  TrainingError: ["training_failed", null],
  CheckpointError: ["storage_failed", null],
};

/**
 * Turns an error into the error that the client sees in the job.
 *
 * @param where for each row that the command has read, its place in the client's file
 * @param paths the server's own paths, which are replaced in messages, each with its replacement
 * @returns undefined for an unexpected error
 */
export function jobError(
  { name, message }: WireError,
  { where = [], paths }: {
    readonly where?: readonly string[];
    readonly paths: readonly (readonly [path: string, name: string])[];
  },
): NonNullable<JobState["error"]> | undefined {
  if (!Object.hasOwn(CODES, name)) return undefined;
  const [code, param] = CODES[name];
  let [text] = message.split("\n");
  for (const [path, called] of paths) {
    text = text.replaceAll(path, called);
    if (called === "training_file") text = text.replace(/training_file, line (\d+)/g, (all, n) => where[n - 1] ?? all);
  }
  return { code, message: text.slice(0, 500), param };
}
