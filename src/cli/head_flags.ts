/** The flags of `finetune` for tasks that train a head for labels or choices: classify, choose, entail, similar. */
import { PROBLEM_TYPES } from "../checkpoint/hugging_face_heads.ts";
import { ConfigError } from "../errors.ts";
import type { HeadKind } from "../finetune/inputs.ts";
import { choice, float, int, text, type Values } from "./flags.ts";

/** The values of `--task` that train a head for labels or choices. */
export const HEAD_TASKS = ["classify", "choose", "entail", "similar"] as const satisfies readonly HeadKind[];

export const headFlags = {
  form: choice(
    ["auto", "gpt2", "gpt1"],
    "with a head: form of the rows: gpt2: plain texts; gpt1: special tokens before, between and after texts; auto: gpt2 for classify and choose, else gpt1",
  ),
  problem_type: choice(
    ["auto", ...PROBLEM_TYPES],
    "with a head: what the labels are: single_label_classification, multi_label_classification or regression; auto: multi-label if they are lists, regression if they are numbers with fractions",
  ),
  train_blocks: int(
    -1,
    "with a head: number of last blocks to train; 0: only the head; -1: all blocks and the embeddings",
    {
      min: -1,
    },
  ),
  layer_decay: float(1, "with a head: ratio of a layer's learning rate to that of the layer above; 0.385 in ULMFiT", {
    above: 0,
    max: 1,
  }),
  unfreeze_every: int(
    0,
    "with a head: train one more layer, from the top down, every this many updates; 0: all at once",
    {
      min: 0,
    },
  ),
  lm_weight: float(-1, "with a head: weight of the next-token loss; -1: 0 for classify, else 0.5", {
    min: -1,
  }),
  features: text(
    "",
    "with train_blocks=0: a file in which the head's inputs are stored, so that the model runs over each row only once",
  ),
};
export type HeadValues = Values<typeof headFlags>;

/** Flags that cannot change after a run has begun. */
export const HEAD_FIXED = ["form", "problem_type", "train_blocks", "layer_decay", "unfreeze_every"] as const;

export const isHeadTask = (task: string): task is HeadKind => (HEAD_TASKS as readonly string[]).includes(task);

/**
 * Checks the flags of heads.
 *
 * @throws {ConfigError} for flags that do not apply to the task, or contradict each other
 */
export function checkHeads({ task, lora_rank, ...values }: HeadValues & { task: string; lora_rank: number }): void {
  const given = (Object.keys(headFlags) as (keyof HeadValues)[]).filter((name) =>
    values[name] !== headFlags[name].fallback
  );
  const refuse = (name: keyof HeadValues, why: string) => new ConfigError(`--${name}=${values[name]}: ${why}`);
  if (!isHeadTask(task)) {
    if (given.length > 0) throw refuse(given[0], `this is only for --task=${HEAD_TASKS.join(" or ")}`);
    return;
  }
  if (values.form === "gpt2" && (task === "entail" || task === "similar")) {
    throw refuse("form", `${task} needs the special tokens of the form gpt1; leave the flag out`);
  }
  if (lora_rank > 0) {
    for (const name of ["train_blocks", "layer_decay", "unfreeze_every"] as const) {
      if (given.includes(name)) throw refuse(name, "an adapter is trained instead of the weights (--lora_rank)");
    }
  }
  if (values.features && (values.train_blocks !== 0 || lora_rank > 0)) {
    throw refuse(
      "features",
      "a head's inputs can be stored only if nothing but the head is trained: --train_blocks=0",
    );
  }
}

export const formOf = (task: HeadKind, { form }: Pick<HeadValues, "form">) =>
  form === "auto" ? task === "entail" || task === "similar" ? "gpt1" : "gpt2" : form;
