/** The flags of `finetune` that are for heads. */
import { PROBLEM_TYPES } from "../checkpoint/hugging_face_heads.ts";
import { ConfigError } from "../errors.ts";
import type { HeadKind } from "../finetune/inputs.ts";
import { choice, float, int, text, type Values } from "./flags.ts";

/** What `--task` takes besides sft. */
export const HEAD_TASKS = ["classify", "choose", "entail", "similar"] as const satisfies readonly HeadKind[];

export const headFlags = {
  form: choice(
    ["auto", "gpt2", "gpt1"],
    "of a head's rows: gpt2, texts as they are; gpt1, with tokens that begin, part and end them; auto: gpt2 for classify and choose",
  ),
  problem_type: choice(
    ["auto", ...PROBLEM_TYPES],
    "of classify: what labels are; auto: lists are several labels, numbers with a fraction a regression",
  ),
  train_blocks: int(-1, "with a head: how many of the last blocks are trained; 0: the head alone; -1: all", {
    min: -1,
  }),
  layer_decay: float(1, "with a head: a layer's learning rate by that of the layer above; ULMFiT has 0.385", {
    above: 0,
    max: 1,
  }),
  unfreeze_every: int(0, "with a head: updates after which one layer more is trained, from the top; 0: all at once", {
    min: 0,
  }),
  lm_weight: float(-1, "with a head: weight of the next tokens' loss; -1: 0 for classify, 0.5 for the others", {
    min: -1,
  }),
  features: text(
    "",
    "with train_blocks=0: a file for what the head sees, computed once; then the model never runs again",
  ),
};
export type HeadValues = Values<typeof headFlags>;

/** What a run has once and for all. */
export const HEAD_FIXED = ["form", "problem_type", "train_blocks", "layer_decay", "unfreeze_every"] as const;

export const isHeadTask = (task: string): task is HeadKind => (HEAD_TASKS as readonly string[]).includes(task);

/** @throws {ConfigError} for flags that say nothing of the task, or contradict each other */
export function checkHeads({ task, lora_rank, ...values }: HeadValues & { task: string; lora_rank: number }): void {
  const given = (Object.keys(headFlags) as (keyof HeadValues)[]).filter((name) =>
    values[name] !== headFlags[name].fallback
  );
  const refuse = (name: keyof HeadValues, why: string) => new ConfigError(`--${name}=${values[name]}: ${why}`);
  if (!isHeadTask(task)) {
    if (given.length > 0) throw refuse(given[0], `this is for --task=${HEAD_TASKS.join(" or ")}`);
    return;
  }
  if (values.form === "gpt2" && (task === "entail" || task === "similar")) {
    throw refuse("form", `${task} is one of GPT-1's tasks, with tokens between the texts; leave the flag out`);
  }
  if (lora_rank > 0) {
    for (const name of ["train_blocks", "layer_decay", "unfreeze_every"] as const) {
      if (given.includes(name)) throw refuse(name, "an adapter is trained instead of the weights (--lora_rank)");
    }
  }
  if (values.features && (values.train_blocks !== 0 || lora_rank > 0)) {
    throw refuse(
      "features",
      "what a head sees stays the same only where nothing below it is trained: --train_blocks=0",
    );
  }
}

export const formOf = (task: HeadKind, { form }: Pick<HeadValues, "form">) =>
  form === "auto" ? task === "entail" || task === "similar" ? "gpt1" : "gpt2" : form;
