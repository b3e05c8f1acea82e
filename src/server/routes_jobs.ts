/** Routes for `/v1/fine_tuning/jobs`, and for deleting the models that jobs have made. */
import type * as NodeCrypto from "node:crypto";
import { builtin } from "../files/system.ts";
import type { Schema } from "./fields.ts";
import { jobBody, type JobRequest } from "./job_request.ts";
import type { Jobs } from "./jobs.ts";
import { type Call, type Route, route } from "./routes.ts";
import { fileRoutes, pageOf, type PageQuery, pageQuery, pageSchema } from "./routes_files.ts";
import type { StoredCheckpoint, StoredEvent, StoredJob } from "./store.ts";

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
      ...{ method: "POST", path: all, audience: "key", summary: "Creates a job", body: jobBody, answers: job },
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
