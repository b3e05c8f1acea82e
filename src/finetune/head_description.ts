/** Describes heads: how a head is created, what inputs it takes, and how checkpoints store its description. */
import { PROBLEM_TYPES } from "../checkpoint/hugging_face_heads.ts";
import { CheckpointError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import { add, reshape, sum } from "../ops/mod.ts";
import type { NamedParameter } from "../optim/adamw.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Task } from "../train/task.ts";
import { DoubleHeads, SequenceClassifier } from "./heads.ts";
import type { HeadKind, InputTokens } from "./inputs.ts";
import type { Labelling } from "./labels.ts";

/** The description of a head and its inputs. A run's state.json stores it in the field `task`. */
export interface HeadDescription extends Labelling {
  /** What the head predicts. */ readonly kind: HeadKind;
  /** GPT-1's tokens, if inputs are in GPT-1's form. */ readonly tokens?: InputTokens;
  /** The padding token, which is never pooled. */ readonly padTokenId?: number;
  /** Dropout of the pooled states in training. */ readonly dropout: number;
}

/** A head: scores of labels, or scores of choices. */
export type Head = SequenceClassifier | DoubleHeads;

/**
 * Computes a head's scores of pooled states.
 *
 * @param states f32 (R, C)
 * @param mask f32 (B, K), added to the scores: 0 for an existing choice, −1e30 for a missing one
 * @returns (B, L), or (B, K) for `choose`
 */
export function scores(head: Head, { kind, tokens }: HeadDescription, states: Tensor, mask?: Tensor): Tensor {
  const [R, C] = states.shape;
  if (head instanceof DoubleHeads) {
    const choices = mask ? mask.shape[1] : 1, made = head.forward(states, { choices, shared: tokens !== undefined });
    return mask ? add(made, mask) : made;
  }
  return head.forward(kind === "similar" ? sum(reshape(states, [R / 2, 2, C]), { axis: 1 }) : states);
}

/** Creates the head that a description describes. */
export function newHead(
  model: GPT,
  { kind, labels, tokens, dropout }: HeadDescription,
  options: { readonly generator?: RandomGenerator; readonly initialize?: boolean } = {},
): Head {
  const { generator, initialize } = options;
  return kind === "choose"
    ? new DoubleHeads(model, { dropout, generator, initialize })
    : new SequenceClassifier(model, labels.length, { bias: tokens !== undefined, dropout, generator, initialize });
}

/** A head's parameters, under their names in checkpoints. */
export const headTensors = (head: Head): NamedParameter[] =>
  [...head.namedParameters()].map(([name, one]): NamedParameter => [`task.${name}`, one]);

/** A description in the form that checkpoints store. */
export function configOf({ kind, tokens, padTokenId, ...rest }: HeadDescription): NonNullable<Task["config"]> {
  return { name: kind, ...rest, ...tokens, ...(padTokenId !== undefined && { padTokenId }) };
}

const KINDS: readonly HeadKind[] = ["classify", "entail", "similar", "choose"];

/**
 * Reads the description of a checkpoint's head.
 *
 * @param task the field `task` of state.json
 * @returns undefined if the task has no head of these kinds
 * @throws {CheckpointError} when the description is not valid
 */
export function describeHead(task: unknown, path: string): HeadDescription | undefined {
  const { name, problemType, labels, dropout, padTokenId, start, delimiter, extract } = (task ?? {}) as Record<
    string,
    unknown
  >;
  const kind = name === "reward" ? "classify" : KINDS.find((kind) => kind === name), ids = [start, delimiter, extract];
  if (!kind) return undefined;
  const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const isText = (value: unknown): value is string => typeof value === "string";
  const type = PROBLEM_TYPES.find((one) => one === problemType), marked = ids.some((id) => id !== undefined);
  const holds = type && Array.isArray(labels) && labels.length > 0 && labels.every(isText) &&
    typeof dropout === "number" && dropout >= 0 && dropout <= 1 &&
    (padTokenId === undefined || isId(padTokenId)) && (!marked || ids.every(isId));
  if (!holds) {
    throw new CheckpointError(
      `${path} is damaged: task is not the description of a head: its kind, problem type, labels, dropout and ids of tokens`,
    );
  }
  const tokens = marked ? { start, delimiter, extract } as InputTokens : undefined;
  return { kind, problemType: type, labels, dropout, padTokenId, tokens };
}
