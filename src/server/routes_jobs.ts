/** Routes for `/v1/fine_tuning/jobs`, and for deleting the models that jobs have made. */
import type * as NodeCrypto from "node:crypto";
import { isObject } from "../files/files.ts";
import { builtin } from "../files/system.ts";
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
  type Schema,
  string,
} from "./fields.ts";
import { type Grader, templateFault } from "./graders.ts";
import type { Jobs } from "./jobs.ts";
import { type Call, type Route, route } from "./routes.ts";
import { fileRoutes, pageOf, type PageQuery, pageQuery, pageSchema } from "./routes_files.ts";
import type { JobRequest, StoredCheckpoint, StoredEvent, StoredJob } from "./store.ts";

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

const body = object({
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

const job: Schema = {
  type: "object",
  required: [
    "id",
    "object",
    "created_at",
    "finished_at",
    "model",
    "fine_tuned_model",
    "organization_id",
    "status",
    "hyperparameters",
    "training_file",
    "validation_file",
    "result_files",
    "trained_tokens",
    "error",
    "seed",
  ],
  properties: {
    ...{ id: { type: "string" }, object: { const: "fine_tuning.job" }, created_at: { type: "integer" } },
    ...{
      finished_at: { type: ["integer", "null"] },
      model: { type: "string" },
      fine_tuned_model: { type: ["string", "null"] },
    },
    status: { enum: ["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"] },
    ...{
      hyperparameters: { type: "object" },
      training_file: { type: "string" },
      validation_file: { type: ["string", "null"] },
    },
    ...{ result_files: { type: "array", items: { type: "string" } }, trained_tokens: { type: ["integer", "null"] } },
    ...{ error: { type: ["object", "null"] }, seed: { type: "integer" }, metadata: { type: ["object", "null"] } },
  },
};

function shown({ id, created, finished, status, state }: StoredJob) {
  const { request, resolved, tuned, results, tokens, error } = state, { type } = request.method;
  const given = request.method[type] as { readonly hyperparameters?: Record<string, unknown> } | undefined;
  const numbers = { ...request.hyperparameters, ...given?.hyperparameters };
  const asked = Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== undefined));
  const auto = { n_epochs: "auto", batch_size: "auto", learning_rate_multiplier: "auto" };
  const { n_epochs, batch_size, learning_rate_multiplier, ...more } = { ...auto, ...asked, ...resolved };
  const hyperparameters = { n_epochs, batch_size, learning_rate_multiplier };
  return {
    ...{ id, object: "fine_tuning.job", created_at: created, finished_at: finished, model: request.model },
    ...{ fine_tuned_model: tuned ?? null, organization_id: "local", status, hyperparameters },
    ...{ training_file: request.training_file, validation_file: request.validation_file, result_files: results },
    ...{ trained_tokens: status === "succeeded" ? tokens : null, error: error ?? null, seed: request.seed },
    ...{ estimated_finish: null, integrations: [], metadata: request.metadata },
    method: { type, [type]: { ...given, hyperparameters: { ...hyperparameters, ...more } } },
  };
}
const shownEvent = ({ id, created, level, message, type, data }: StoredEvent) => ({
  ...{ id, object: "fine_tuning.job.event", created_at: created, level, message, type, data },
});
const shownCheckpoint = ({ id, job, step, created, model, metrics }: StoredCheckpoint) => ({
  ...{ id, object: "fine_tuning.job.checkpoint", created_at: created, fine_tuning_job_id: job },
  ...{ fine_tuned_model_checkpoint: model, step_number: step, metrics: { step, ...metrics } },
});

const event: Schema = { type: "object", required: ["id", "object", "created_at", "level", "message"] };
const checkpoint: Schema = {
  type: "object",
  required: [
    "id",
    "object",
    "created_at",
    "fine_tuned_model_checkpoint",
    "step_number",
    "metrics",
    "fine_tuning_job_id",
  ],
};

/**
 * Returns `mark`, which is equal for a request and its repetitions, and `again`: whether this request may be a
 * repetition. Clients send an idempotency key, or their number of retries. Without either, a second request with the
 * same body is a new request.
 */
function repeatOf({ request: { headers } }: Call, body: unknown): { readonly mark: string; readonly again: boolean } {
  const key = headers.get("idempotency-key")?.slice(0, 256),
    tries = Number(headers.get("x-stainless-retry-count") ?? 0);
  const hash = builtin<typeof NodeCrypto>("node:crypto").createHash("sha256").update(key ?? JSON.stringify(body))
    .digest("hex");
  return { mark: `${key === undefined ? "body" : "key"} ${hash}`, again: key !== undefined || tries > 0 };
}

/** Names and values of the query's `metadata[NAME]=VALUE`. */
const metadataOf = ({ request }: Call): [name: string, value: string][] =>
  [...new URL(request.url).searchParams].flatMap(([name, value]): [string, string][] => {
    const [, key] = /^metadata\[([\s\S]+)\]$/.exec(name) ?? [];
    return key === undefined ? [] : [[key, value]];
  });

const all = "/v1/fine_tuning/jobs", one = `${all}/{job}`;

/** Makes the routes for files and jobs. All of them need a key. */
export function jobRoutes(jobs: Jobs): readonly Route[] {
  const found = ({ path, key }: Call) => jobs.find(path.job, key!), { store } = jobs;
  const act = (verb: string, summary: string, does: (job: StoredJob) => StoredJob) =>
    route({
      ...{ method: "POST", path: `${one}/${verb}`, audience: "key", summary, answers: job },
      answer: (call) => Response.json(shown(does(found(call)))),
    });
  return [
    ...fileRoutes(jobs),
    route({
      ...{ method: "POST", path: all, audience: "key", summary: "Creates a job", body, answers: job },
      async answer(call) {
        const { key, body: { suffix, validation_file, method, hyperparameters, metadata, seed, ...rest } } = call;
        const request: JobRequest = {
          ...{ model: rest.model, training_file: rest.training_file },
          ...{
            suffix: suffix ?? null,
            validation_file: validation_file ?? null,
            method: method ?? { type: "supervised" },
          },
          ...{ hyperparameters: hyperparameters ?? {}, metadata: metadata ?? null },
          seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1,
        };
        const repeat = repeatOf(call, call.body.seed === undefined ? { ...request, seed: null } : request);
        return Response.json(shown(await jobs.create(key!, request, repeat)));
      },
    }),
    route({
      ...{
        method: "GET",
        path: all,
        audience: "key",
        summary: "Your jobs, newest first",
        answers: pageSchema(job),
      },
      query: pageQuery(20, 100),
      answer(call) {
        const page = call.query as unknown as PageQuery, wanted = metadataOf(call);
        if (wanted.length === 0) {
          const [rows, more] = store.jobs(call.key!, page);
          return pageOf([rows.map(shown), more]);
        }
        const [rows] = store.jobs(call.key!, { ...page, limit: 10_000 });
        const fits = rows.filter(({ state: { request: { metadata } } }) =>
          wanted.every(([name, value]) => metadata?.[name] === value)
        );
        return pageOf([fits.slice(0, page.limit).map(shown), fits.length > page.limit]);
      },
    }),
    route({
      ...{ method: "GET", path: one, audience: "key", summary: "A job", answers: job },
      answer: (call) => Response.json(shown(found(call))),
    }),
    act("cancel", "Cancels a job; its checkpoints stay", (job) => jobs.cancel(job)),
    act("pause", "Saves a job and pauses it", (job) => jobs.pause(job)),
    act("resume", "Resumes a paused job", (job) => jobs.resume(job)),
    route({
      ...{ method: "GET", path: `${one}/events`, audience: "key", answers: pageSchema(event) },
      ...{ summary: "A job's events, newest first", query: pageQuery(20, 1000) },
      answer(call) {
        const [rows, more] = store.events(found(call).id, call.query as unknown as PageQuery);
        return pageOf([rows.map(shownEvent), more]);
      },
    }),
    route({
      ...{ method: "GET", path: `${one}/checkpoints`, audience: "key", answers: pageSchema(checkpoint) },
      ...{ summary: "A job's checkpoints, newest first; each is a model", query: pageQuery(10, 100) },
      answer(call) {
        const [rows, more] = store.checkpoints(found(call).id, call.query as unknown as PageQuery);
        return pageOf([rows.map(shownCheckpoint), more]);
      },
    }),
    route({
      ...{ method: "POST", path: `${one}/checkpoints`, audience: "key", answers: job },
      summary: "Not in OpenAI's API: saves a checkpoint now",
      answer(call) {
        const job = found(call);
        jobs.save(job);
        return Response.json(shown(job));
      },
    }),
    route({
      ...{
        method: "DELETE",
        path: "/v1/models/{model}",
        audience: "key",
        summary: "Deletes a model that a job has made",
      },
      answers: {
        type: "object",
        required: ["id", "object", "deleted"],
        properties: { id: { type: "string" }, object: { const: "model" }, deleted: { const: true } },
      },
      async answer({ path: { model }, key }) {
        await jobs.models.delete(model, key!);
        return Response.json({ id: model, object: "model", deleted: true });
      },
    }),
  ];
}
