/** The tasks of `finetune` that learn from preferences: dpo, reward. */
import { ChatTemplate } from "../data/chat_template.ts";
import { endOfText } from "../data/tokenize_example.ts";
import { preferenceRows, tokenizePreference, tokenizeRanking } from "../data/tokenize_preference.ts";
import { labelCount, type TokenRow, TokenRows } from "../data/token_rows.ts";
import { DataError } from "../errors.ts";
import { DirectPreference, type PreferenceLoss, type PreferenceOptions } from "../finetune/dpo.ts";
import { type PairSizes, type PreferenceRows, referenceSums } from "../finetune/pairs.ts";
import type { HeadDescription } from "../finetune/head_description.ts";
import { HeadRows } from "../finetune/head_rows.ts";
import type { SequenceClassifier } from "../finetune/heads.ts";
import { ReferencePolicy } from "../finetune/policy.ts";
import { RewardModelling } from "../finetune/reward.ts";
import { RandomGenerator } from "../random/mod.ts";
import { specialIds } from "../tokenizer/to_hugging_face.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { taskCommand } from "./command.ts";
import type { HeadStart } from "./finetune_heads.ts";
import { cutLines, maxLengthOf, readSplits, type Tuning, type TuningSetup } from "./finetune_tasks.ts";
import { baseOf } from "./lora_flags.ts";
import { count } from "./progress.ts";
import { loadReference, type RunReference } from "./reference.ts";
import { NO_END, rowOptions } from "./row_flags.ts";
import { absolute } from "./train_command.ts";

/** The pairs of a file. */
export interface PairData {
  readonly rows: PreferenceRows;
  /** Whether all pairs are conversations. */
  readonly chats: boolean;
  /** Lines about the pairs, to print. */
  readonly lines: readonly string[];
}

/**
 * Reads pairs.
 *
 * @throws {DataError} if a row's answers are equal or empty, which names the row, or if no pair can be used
 */
export async function readPairs({ values, model, tokenizer, progress }: TuningSetup): Promise<PairData> {
  const { data, eval_data } = values, maxLength = maxLengthOf(values, model), all = new TokenRows();
  using template = ChatTemplate.of(tokenizer, { name: values.template || undefined });
  const options = rowOptions(values, { tokenizer, template, maxLength });
  let plain = false, pairs = 0, cut = 0, learned = 0;
  const { train, val } = await readSplits(values, ["preference"], progress, async (example) => {
    const { chosen, rejected } = preferenceRows(await tokenizePreference(example, options), options);
    const rows = [chosen, rejected], labels = rows.map(labelCount);
    pairs++;
    plain ||= typeof example.chosen === "string";
    cut += Number(rows.some(({ ids, fullLength }) => fullLength > ids.length));
    if (labels.includes(0) || same(chosen, rejected)) return undefined;
    learned += labels[0] + labels[1];
    for (const row of rows) all.push(row);
    return all.length / 2 - 1;
  });
  const files = eval_data ? `${data} and ${eval_data}` : data, left = all.length / 2;
  const why = `whose answers do not differ within ${maxLength} tokens`;
  if (left === 0) {
    const show = taskCommand("data", ["--task=dpo", data]);
    throw new DataError(`${files} has only pairs ${why}\nThis prints their tokens: ${show}`);
  }
  const rows = { train: new TokenRows(), val: new TokenRows() };
  for (const [into, some] of [[rows.train, train], [rows.val, val]] as const) {
    for (const pair of some) for (const which of [0, 1]) into.push(all.row(2 * pair + which));
  }
  return {
    rows,
    chats: !plain,
    lines: [
      `${files}: ${count(train.length)} pairs to train on, ${count(val.length)} to evaluate on; ` +
      `${count(all.tokens)} tokens, ${count(learned)} of them in answers`,
      ...cutLines({ cut, rows: pairs, maxLength }, values),
      ...left < pairs ? [`pairs ${why}: ${count(pairs - left)} of ${count(pairs)}, skipped`] : [],
      ...plain && endOfText(tokenizer) === null ? [NO_END] : [],
    ],
  };
}

const same = (a: TokenRow, b: TokenRow) => a.ids.length === b.ids.length && a.ids.every((id, i) => id === b.ids[i]);

/** Makes the trainer's task for direct preference optimisation. */
export async function dpo(setup: TuningSetup): Promise<Tuning> {
  const { values, model } = setup, { batch_size: batchSize, beta, label_smoothing: labelSmoothing, seed } = values;
  const { rows, lines, chats } = await readPairs(setup), maxLength = maxLengthOf(values, model);
  const { reference, named } = await referenceOf(setup, rows, { batchSize, maxLength });
  const loss = values.loss_type as PreferenceLoss; // checked by checkPreferences
  const options = { batchSize, maxLength, loss, beta, labelSmoothing, reference, seed };
  const task = new DirectPreference(model, rows, options), { ids, learned } = rows.val.row(0);
  const against = values.reference_free ? "none" : named?.name ?? "the model without the adapter";
  return {
    task,
    microBatches: { train: task.microBatches("train"), val: task.microBatches("val") },
    rehearse: (model) => task.rehearsal(model),
    chats,
    prompt: learned.indexOf(1) > 0 ? ids.slice(0, learned.indexOf(1)) : undefined,
    data: [...lines, `reference: ${against}${values.precompute_ref_log_probs ? ", run once" : ""}`],
    reference: named,
  };
}

/**
 * Loads the reference model. With `--precompute_ref_log_probs`, computes the reference's log-probabilities of all rows
 * instead, and disposes of the model.
 */
async function referenceOf(
  setup: TuningSetup,
  rows: PreferenceRows,
  sizes: PairSizes,
): Promise<Pick<PreferenceOptions, "reference"> & Pick<RunReference, "named">> {
  const { values, model, run, progress } = setup;
  if (values.reference_free) return {};
  if (!values.precompute_ref_log_probs) {
    const { reference, named } = await loadReference({ ...setup });
    return { reference: new ReferencePolicy(model, reference), named };
  }
  // The model itself is the reference before training begins: in a new run, or if an adapter will be put on it.
  const adapts = values.lora_rank > 0, isItself = !values.ref_model && (adapts || !run);
  const found = isItself
    ? { reference: model, named: adapts ? undefined : await baseOf(values.init_from, absolute) }
    : await loadReference({ ...setup });
  const policy = new ReferencePolicy(model, found.reference), total = (rows.train.length + rows.val.length) / 2;
  let before = 0;
  const sums = async (some: TokenRows) => {
    const onProgress = (pairs: number) =>
      progress.status(() => `reference: ${count(before + pairs)} of ${count(total)} pairs`);
    const result = await referenceSums(policy, some, { ...sizes, onProgress });
    before += some.length / 2;
    return result;
  };
  const reference = { train: await sums(rows.train), val: await sums(rows.val) };
  progress.end();
  if (!isItself) policy.model.dispose();
  return { reference, named: found.named };
}

/** Whether a head gives one number for a text, as in a reward model. */
export const isReward = ({ kind, labels, tokens }: HeadDescription): boolean =>
  kind === "classify" && labels.length === 1 && !tokens;

/** The model that a reward model begins with: the model of `--init_from`, with its head if it is a reward model. */
export function rewardStart({ model, tokenizer, head, description }: HeadStart): HeadStart {
  if (head && description && isReward(description)) return { model, tokenizer, head, description };
  head?.dispose(); // it was trained for another task
  return { model, tokenizer };
}

const NO_END_SEEN =
  "The tokenizer has no token that ends a text: the reward model cannot tell complete answers from truncated ones.";

/** Makes the trainer's task for a reward model. */
export async function rewardModel(setup: TuningSetup): Promise<Tuning> {
  const { values, model, tokenizer, start = {} } = setup, { data, eval_data, batch_size: batchSize, seed } = values;
  const maxLength = maxLengthOf(values, model), { rows, read, long } = await readRankings(setup, maxLength);
  const { head, description } = start, padTokenId = description ? description.padTokenId : padOf(tokenizer);
  const task = new RewardModelling(model, rows, {
    ...{ batchSize, maxLength, padTokenId, seed, centering: values.center_rewards_coefficient },
    head: head as SequenceClassifier | undefined, // rewardStart returns no other kind of head
    generator: new RandomGenerator(seed),
  });
  const files = eval_data ? `${data} and ${eval_data}` : data, most = Math.max(rows.train.choices, rows.val.choices);
  const what = most > 2 ? `rankings of at most ${most} answers` : "pairs";
  const folder = taskCommand("convert", [values.out_dir, "FOLDER"]);
  const use = taskCommand("finetune", ["--task=ppo", `--reward=${values.out_dir}`, "--init_from=MODEL", "--data=FILE"]);
  return {
    task,
    microBatches: { train: task.microBatches("train"), val: task.microBatches("val") },
    rehearse: (model) => task.rehearsal(model),
    data: [
      `${files}: ${count(rows.train.length)} ${what} to train on, ${count(rows.val.length)} to evaluate on`,
      ...long > 0
        ? [`rows with a text of more than ${maxLength} tokens: ${count(long)} of ${count(read)}, skipped`]
        : [],
      ...endOfText(tokenizer) === null ? [NO_END_SEEN] : [],
    ],
    after: ["", "To tune a policy with it:", `  ${use}`, "To convert it for transformers:", `  ${folder}`],
  };
}

/**
 * Reads pairs and rankings as whole texts. Skips rows with a text that is too long.
 *
 * @throws {DataError} if all rows are
 */
async function readRankings({ values, tokenizer, progress }: TuningSetup, maxLength: number) {
  using template = ChatTemplate.of(tokenizer, { name: values.template || undefined });
  const options = rowOptions(values, { tokenizer, template, maxLength: undefined });
  let read = 0, long = 0;
  const splits = await readSplits(values, ["preference", "ranking"], progress, async (example) => {
    const texts = await tokenizeRanking(example, options);
    const tooLong = texts.some(({ length }) => length > maxLength);
    read++;
    long += Number(tooLong);
    return tooLong
      ? undefined
      : { texts, where: example.where, label: example.kind === "ranking" ? 0 : example.margin ?? 0 };
  });
  if (read === long) {
    throw new DataError(`${values.data}: all ${count(read)} rows have a text of more than ${maxLength} tokens`);
  }
  const of = (all: typeof splits.train) => {
    const rows = new HeadRows();
    for (const { texts, ...about } of all) rows.add(texts, about);
    return rows;
  };
  return { rows: { train: of(splits.train), val: of(splits.val) }, read, long };
}

/** The token that pads rows. It is not the end-of-text token, because the score is read at the place of that token. */
function padOf(tokenizer: Tokenizer): number | undefined {
  const { pad_token_id, eos_token_id } = specialIds(tokenizer);
  return pad_token_id === null || pad_token_id === eos_token_id ? undefined : pad_token_id;
}
