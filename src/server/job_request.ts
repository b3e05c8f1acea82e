/** What a client's request for a job may contain. */
import { isObject } from "../files/files.ts";
import { invalid } from "./errors.ts";
import {
  either,
  type Field,
  ignored,
  integer,
  list,
  mapped,
  metadata,
  number,
  object,
  optional,
  refused,
  string,
} from "./fields.ts";
import { type Grader, templateFault } from "./graders.ts";

/** A client's request for a job, validated. */
export interface JobRequest {
  readonly model: string;
  readonly training_file: string;
  readonly validation_file: string | null;
  readonly suffix: string | null;
  readonly seed: number;
  readonly method: { readonly type: "supervised" | "dpo" | "reinforcement" } & Readonly<Record<string, unknown>>;
  readonly hyperparameters: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, string>> | null;
}

/** A number, or `auto`. */
const auto = (field: Field<number>): Field<number | "auto" | undefined> =>
  optional(either<number | "auto">("a number or auto", [
    { is: (value) => value === "auto", field: string({ max: 4, values: ["auto"] }) as Field<"auto"> },
    { is: (value) => typeof value === "number", field },
  ]));

const common = {
  n_epochs: auto(integer({ min: 1, max: 50 })),
  batch_size: auto(integer({ min: 1, max: 256 })),
  learning_rate_multiplier: auto(number({ min: 0, max: 10_000, above: true })),
};
const lora = {
  lora_rank: auto(
    integer({
      min: 0,
      max: 256,
      about: "Not in OpenAI's API: rank of the adapter that is trained; 0 trains all weights.",
    }),
  ),
};

const template = (about: string) =>
  mapped(string({ max: 65536, about }), (text, at) => {
    const fault = templateFault(text);
    if (fault) throw invalid(at, `${at}: ${fault}`);
    return text;
  });
const text = template("A text with {{item.NAME}} and {{sample.output_text}}.");
const typed = <T extends string>(type: T) => string({ max: 40, values: [type] }) as Field<T>;
const name = string({ min: 1, max: 64 });

/** A field of several shapes; the value's `type` says which. */
function byType<T>(cases: Readonly<Record<string, Field<T>>>, instead: string): Field<T> {
  const names = Object.keys(cases);
  return {
    schema: { anyOf: Object.values(cases).map(({ schema }) => schema), description: instead },
    check(value, at) {
      if (!isObject(value)) throw invalid(at, `${at}: expected an object`, "invalid_type");
      const { type } = value;
      if (typeof type === "string" && Object.hasOwn(cases, type)) return cases[type].check(value, at);
      const code = type === undefined ? "missing_required_parameter" : "invalid_value";
      throw invalid(`${at}.type`, `${at}.type: expected ${names.join(", ")}. ${instead}`, code);
    },
  };
}

const grader = byType<Grader>({
  string_check: object({
    ...{ type: typed("string_check"), name, input: text, reference: text },
    operation: string({ max: 10, values: ["eq", "ne", "like", "ilike"] }) as Field<"eq" | "ne" | "like" | "ilike">,
  }),
  text_similarity: object({
    ...{ type: typed("text_similarity"), name: optional(name, "text_similarity"), input: text, reference: text },
    evaluation_metric: string({
      max: 20,
      values: ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"],
    }) as Field<"fuzzy_match">,
  }),
  score_model: mapped(
    object({
      ...{ type: typed("score_model"), name, model: string({ min: 1, max: 256 }) },
      input: list(
        object({
          role: string({ max: 20, values: ["user", "assistant", "system", "developer"] }),
          content: text,
          type: optional(typed("message")),
        }),
        {
          min: 1,
          max: 64,
          about: "What the reward model reads: the text of a single message, or a chat of several messages.",
        },
      ),
      range: optional(list(number({ min: -1e6, max: 1e6 }), { min: 2, max: 2 })),
      sampling_params: ignored("A reward model returns a score and generates no text."),
    }),
    ({ range, input, sampling_params: _, ...rest }, at): Grader => {
      if (range && range[0] >= range[1]) {
        throw invalid(`${at}.range`, `${at}.range: expected [lowest score, highest score]`);
      }
      const turns = input.map(({ role, content }) => ({ role, content })), [least, most] = range ?? [];
      return {
        ...{ ...rest, input: turns.length === 1 ? turns[0].content : turns },
        ...least !== undefined && { range: [least, most] },
      };
    },
  ),
}, "Graders run no code. The `model` of a score_model is the name of a served reward model.");

const hyper = <F extends Readonly<Record<string, Field<unknown>>>>(fields: F) => optional(object(fields));
const other = refused("It belongs to another method.");
const method = byType<JobRequest["method"]>({
  supervised: object({
    ...{ type: typed("supervised"), dpo: other, reinforcement: other },
    supervised: optional(object({ hyperparameters: hyper({ ...common, ...lora }) })),
  }),
  dpo: object({
    ...{ type: typed("dpo"), supervised: other, reinforcement: other },
    dpo: optional(object({
      hyperparameters: hyper({ ...common, ...lora, beta: auto(number({ min: 0, max: 2, above: true })) }),
    })),
  }),
  reinforcement: object({
    ...{ type: typed("reinforcement"), supervised: other, dpo: other },
    reinforcement: object({
      grader,
      hyperparameters: hyper({
        ...{ ...common, ...lora },
        compute_multiplier: auto(
          number({ min: 1e-5, max: 10, about: "The number of answers for each prompt is 8 times this, from 2 to 64." }),
        ),
        eval_interval: auto(integer({ min: 1, max: 1_000_000 })),
        eval_samples: ignored("Each held-out prompt is answered once."),
        reasoning_effort: ignored(),
      }),
    }),
  }),
}, "OpenAI's other methods are not supported.");

/** The body of the request that creates a job. */
export const jobBody = object({
  model: string({
    min: 1,
    max: 256,
    about: "A served model. Not in OpenAI's API: new:NAME trains a new model by a shipped config.",
  }),
  training_file: string({ min: 1, max: 80 }),
  validation_file: optional(string({ min: 1, max: 80 })),
  suffix: optional(string({ min: 1, max: 64, pattern: /^[\w .-]+$/, about: "letters, digits, spaces and _ . -" })),
  seed: optional(integer({ min: 0, max: 2 ** 31 - 1 })),
  method: optional(method),
  hyperparameters: hyper({ ...common, ...lora }),
  metadata: optional(metadata),
  integrations: refused("The job's events and its results file have the metrics.", [[]]),
});
