/**
 * `deno task finetune`: makes the model, the task and the trainer from the flags. The tasks are in the files
 * finetune_*.ts.
 */
import { relative } from "node:path";
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";
import type { RunFolder } from "../checkpoint/run_folder.ts";
import type { Device } from "../engine/device.ts";
import { Profile } from "../engine/profile.ts";
import { GPT } from "../gpt.ts";
import { loadBase, loadPretrained, loadRun, runTokenizer } from "../pretrained/load.ts";
import { loadWithHead } from "../pretrained/load_head.ts";
import { RandomGenerator } from "../random/mod.ts";
import { checkTraining } from "../train/memory.ts";
import type { TrainerOptions } from "../train/options.ts";
import { Trainer } from "../train/trainer.ts";
import { command, type Running } from "./command.ts";
import { checkTask, finetuneDeclaration, finetuneFlags, type FinetuneValues, FIXED } from "./finetune_flags.ts";
import { type HeadStart, headStart, headTask, idsSince, resumedHead } from "./finetune_heads.ts";
import { parseRewards, withPaths } from "./rollout_flags.ts";
import type { Tuning, TuningSetup } from "./finetune_tasks.ts";
import { isHeadTask } from "./head_flags.ts";
import { baseOf, putAdapter } from "./lora_flags.ts";
import { nativeFor } from "./native.ts";
import { count } from "./progress.ts";
import { chatting } from "./row_flags.ts";
import { openDevice, openRun } from "./run_model.ts";
import { checkPermission, reportDownload } from "./shared_flags.ts";
import { absolute, leaveOutThreads, optionsOf, runFolder } from "./train_command.ts";
import { goOn, resumeCommand } from "./train_flags.ts";
import { TrainReport } from "./train_report.ts";

type Maker = (setup: TuningSetup) => Promise<Tuning>;
const heads = () => Promise.resolve(headTask);
const groups = async () => (await import("./finetune_rollouts.ts")).policyGradient;

/** The tasks by their names in `--task`. Each is imported when it is needed, because it imports much of the library. */
const TASKS: Record<FinetuneValues["task"], () => Promise<Maker>> = {
  sft: async () => (await import("./finetune_tasks.ts")).sft,
  classify: heads,
  choose: heads,
  entail: heads,
  similar: heads,
  dpo: async () => (await import("./finetune_preferences.ts")).dpo,
  reward: async () => (await import("./finetune_preferences.ts")).rewardModel,
  grpo: groups,
  rloo: groups,
  ppo: async () => (await import("./finetune_ppo.ts")).proximalPolicy,
};

type FinetuneRunning = Running<typeof finetuneFlags>;

export const finetune = command({
  ...finetuneDeclaration,
  run: (running) => runFinetune(running, (...how) => new TrainReport(...how)),
});

/** Makes the report of a run. */
export type Reporting = (...how: ConstructorParameters<typeof TrainReport>) => TrainReport;

/** Carries out `finetune`. @param more settings of the task for which there are no flags */
export async function runFinetune(
  running: FinetuneRunning,
  reporting: Reporting,
  more: Pick<TuningSetup, "rewards"> = {},
): Promise<void> {
  using run = running.values.init_from === "resume" ? await openRun(running.values.out_dir, "finetune") : undefined;
  const options = { flags: finetuneFlags, fixed: FIXED, task: "finetune" } as const;
  const values = run ? goOn(running, run.description.flags, options).resumed : running.values;
  if (run) checkTask(values);
  checkPermission(values.device, "finetune");
  if (!values.eval_only) await run?.lock(); // before reading files that another process may write
  const words = resumeCommand(running.args, values.out_dir, "finetune");
  const report = reporting(values, { task: "finetune", resumeCommand: words }, running.progress);
  leaveOutThreads(values, running.given, report);
  await tune({ ...running, values }, run, report, more);
}

/** @param run the run to resume; undefined begins a new run */
async function tune(
  request: FinetuneRunning,
  run: RunFolder | undefined,
  report: TrainReport,
  more: Pick<TuningSetup, "rewards">,
): Promise<void> {
  const { values } = request, note = (line: string) => report.note(line);
  const device = await openDevice(values, await nativeFor(values, note));
  const start = run ? await resumedModel(values, run, device) : await pretrained(values, device, report);
  const { model, tokenizer, added } = start;
  if (values.profile) device.profile = new Profile();
  const make = await TASKS[values.task]();
  const tuning = await make({ values, model, tokenizer, progress: report.progress, start, run, ...more });
  using _ = tuning.owned;
  const base = run?.description.base ?? (values.lora_rank > 0 ? await baseOf(values.init_from, absolute) : undefined);
  // PPO's task has a module, too: its value function, which is not stored with an adapter.
  const head = hasHead(values.task) ? tuning.task.module : undefined;
  const adapter = await putAdapter(values, model, { run, base: base?.name ?? "", head, added });
  if (adapter) note(adapter.line);
  const updates = Math.ceil(tuning.microBatches.train / values.gradient_accumulation_steps);
  const options = trainerOptions(values, updates, tuning.microBatches.val);
  report.values = { ...values, max_iters: options.maxIters };
  const { weights } = values, rehearsal = { device, model, weights, adapt: adapter?.adapt, task: tuning.rehearse };
  if (!values.eval_only) await checkTraining(model.config, { ...options, ...rehearsal, memory: report.memory });
  const description = {
    flags: await lastingFlags(values),
    model: { ...model.config },
    vocabulary: tokenizer.toJSON(),
    base,
    reference: run?.description.reference ?? tuning.reference,
  };
  if (!run && !values.eval_only) checkFolder(values, [base?.name, tuning.reference?.name]);
  const folder = await runFolder(run, description, { values, note });
  const generator = new RandomGenerator(values.seed);
  using trainer = new Trainer(model, tuning.task, { ...options, generator, folder, adapter: adapter?.trained });
  const resumed = run && await trainer.resume({ onNote: note });
  report.begin({
    model,
    iter: trainer.iter,
    data: tuning.data.join("\n"),
    update: `updates: ${count(options.maxIters)}, ${count(updates)} an epoch`,
    limit: values.max_iters > 0 ? "max_iters" : "num_train_epochs",
  });
  if (resumed) report.resumed(trainer, values.data, resumed);
  report.shown = tuning.shown;
  const interrupt = await report.follow(trainer, folder, request);
  if (!interrupt.aborted && !values.eval_only) {
    if (tuning.after) { for (const line of tuning.after) note(line); }
    else await report.sample(model, tokenizer, interrupt, tuning);
  }
  if (device.profile) note(`\n${device.profile.table()}`);
  device.close();
}

/**
 * Checks that `--out_dir` holds no model that the run needs again when it is resumed or used: if that folder has an
 * older run, it is renamed.
 *
 * @param models the base of the adapter and the reference model, if the run has them
 */
function checkFolder({ out_dir, reward }: FinetuneValues, models: readonly (string | undefined)[]): void {
  const rewards = reward ? parseRewards(reward).map(({ path }) => path) : [];
  const isInside = (path: string) => !/^(\.\.|\/|[A-Za-z]:)/.test(relative(out_dir, path));
  if (![...models, ...rewards].some((path) => path !== undefined && isInside(path))) return;
  throw new ConfigError(
    `--out_dir=${out_dir}: the run needs the model in this folder when it is resumed or used; name another folder`,
  );
}

/** The trainer's options. Counts of epochs are converted to updates. */
function trainerOptions(values: FinetuneValues, updates: number, evaluation: number): TrainerOptions {
  const { num_train_epochs, max_iters, eval_interval, eval_iters, lr_scheduler_type } = values;
  const maxIters = max_iters || Math.ceil(num_train_epochs * updates);
  return optionsOf({
    ...values,
    max_iters: maxIters,
    eval_interval: eval_interval || updates,
    eval_iters: eval_iters || evaluation,
    decay_lr: lr_scheduler_type !== "constant",
    lr_decay_iters: maxIters,
    lr_scheduler_type: lr_scheduler_type === "cosine" ? "cosine" : "linear",
    final_evaluation: true,
  });
}

/** The model that a run trains. */
interface Start extends HeadStart {
  /** Ids of the tokens that were added to the model's vocabulary. */
  readonly added?: readonly number[];
}

/** The model of a resumed run. In most cases its weights are not set: the trainer loads them from the checkpoint. */
async function resumedModel(values: FinetuneValues, run: RunFolder, device: Device): Promise<Start> {
  const { dropout, seed, weights } = values, tokenizer = await runTokenizer(run);
  const description = hasHead(values.task) ? await resumedHead(run) : undefined;
  if (run.description.base) {
    const model = await loadBase(run, { device, dropout, seed, weights });
    return { model: model.train(), tokenizer, description };
  }
  if (values.features) { // the features are computed with the checkpoint's weights
    const model = await loadRun(run, { device, dropout, seed, checkpoint: "last" });
    return { model: model.train(), tokenizer, description };
  }
  const model = new GPT({ ...run.description.model, dropout }, { device, seed, initialize: false });
  return { model, tokenizer, description };
}

async function pretrained(values: FinetuneValues, device: Device, report: TrainReport): Promise<Start> {
  const { init_from, dropout, seed, eval_only, weights, lora_rank } = values, trainable = !eval_only && lora_rank === 0;
  const onProgress = reportDownload(report.progress), onNote = (line: string) => report.note(line);
  const options = { device, dropout, seed, weights, trainable, onNote, onProgress };
  if (isHeadTask(values.task)) return headStart(values, await loadWithHead(init_from, options));
  const loaded: HeadStart = hasHead(values.task)
    ? (await import("./finetune_preferences.ts")).rewardStart(await loadWithHead(init_from, options))
    : await loadPretrained(init_from, options);
  const { model, tokenizer: { vocabSize: known } } = loaded,
    tokenizer = await chatting(loaded.tokenizer, values.template);
  model.train().resizeTokenEmbeddings(tokenizer.vocabSize, { known });
  return { ...loaded, tokenizer, added: idsSince(known, tokenizer) };
}

/** Whether a task trains a head of any kind. */
const hasHead = (task: string): boolean => isHeadTask(task) || task === "reward";

/** The flags for run.json, with absolute paths, so that the run can be resumed from any folder. */
async function lastingFlags({ profile: _, native: __, ...flags }: FinetuneValues) {
  const { data, eval_data, reward, value_model, ptx_data } = flags;
  return {
    ...flags,
    data: absolute(data),
    eval_data: eval_data && absolute(eval_data),
    reward: withPaths(reward, absolute),
    ptx_data: ptx_data && absolute(ptx_data),
    value_model: value_model && await exists(value_model) ? absolute(value_model) : value_model,
  };
}
