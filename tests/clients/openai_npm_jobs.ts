/**
 * OpenAI's JavaScript client in Deno, with files and fine-tuning jobs.
 *
 * Usage: deno run openai_npm_jobs.ts URL KEY CHAT_MODEL
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { importNpm } from "../../scripts/npm.ts";

const [baseURL, apiKey, model] = Deno.args;
const { default: OpenAI, BadRequestError, NotFoundError, toFile } = await importNpm("openai");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 }), { jobs } = client.fineTuning;
// deno-lint-ignore no-explicit-any -- the client's classes
type Any = any;
const ids = async (list: AsyncIterable<Any>) => (await Array.fromAsync(list)).map(({ id }) => id);

const row = { messages: [{ role: "user", content: "hi" }, { role: "assistant", content: "yes sir" }] };
const text = (JSON.stringify(row) + "\n").repeat(40);
const file = await client.files.create({ file: await toFile(new Blob([text]), "chats.jsonl"), purpose: "fine-tune" });
assertEquals([file.bytes, file.filename, file.status], [text.length, "chats.jsonl", "processed"]);
assertEquals(await client.files.retrieve(file.id), file);
assertEquals(await client.files.waitForProcessing(file.id), file);
assertEquals(await (await client.files.content(file.id)).text(), text);
const expires_after = { anchor: "created_at", seconds: 3600 };
const second = await client.files.create({ file: new File(["a"], "a.txt"), purpose: "user_data", expires_after });
assertEquals(second.expires_at, second.created_at + 3600);
assertEquals((await ids(client.files.list({ limit: 1 }))).slice(0, 2), [second.id, file.id]); // pages of one file

const supervised = { hyperparameters: { n_epochs: 2, batch_size: 4, learning_rate_multiplier: "auto" } };
const job = await jobs.create({
  ...{ model, training_file: file.id, validation_file: null, suffix: "npm", seed: 3, metadata: { by: "npm" } },
  method: { type: "supervised", supervised },
});
assertEquals([job.object, job.status, job.seed, job.metadata], ["fine_tuning.job", "validating_files", 3, {
  by: "npm",
}]);
const until = async (id: string, statuses: RegExp) => {
  for (;;) {
    const job = await jobs.retrieve(id);
    if (statuses.test(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};
const done = await until(job.id, /succeeded|failed/);
assertEquals([done.status, done.error], ["succeeded", null]);
const events = await Array.fromAsync<Any>(jobs.listEvents(job.id, { limit: 7 })); // pages of seven
assertEquals(new Set(events.map(({ id }) => id)).size, events.length);
assert(events.filter(({ type }) => type === "metrics").length >= 18, `${events.length} events`);
const [checkpoint] = await Array.fromAsync<Any>(jobs.checkpoints.list(job.id, { limit: 1 }));
// Four of the 40 rows are held out, so an epoch has nine updates.
assertEquals([checkpoint.fine_tuning_job_id, checkpoint.step_number], [job.id, 18]);
for (const result of done.result_files) {
  assert((await (await client.files.content(result)).arrayBuffer()).byteLength > 0);
}

const tuned = await client.models.retrieve(done.fine_tuned_model);
const answer = await client.chat.completions.create({ model: tuned.id, messages: [row.messages[0]], max_tokens: 4 });
assertEquals(answer.model, tuned.id);

const long = await jobs.create({ model, training_file: file.id, hyperparameters: { n_epochs: 50, batch_size: 1 } });
await until(long.id, /queued|running/);
assertEquals((await jobs.pause(long.id)).status, "paused");
assert(/queued|running/.test((await jobs.resume(long.id)).status));
assertEquals((await jobs.cancel(long.id)).status, "cancelled");
assertEquals((await ids(jobs.list({ limit: 1 }))).slice(0, 2), [long.id, job.id]);
assertEquals(await ids(jobs.list({ metadata: { by: "npm" } })), [job.id]);
const refused = async (kind: Any, param: string | null, call: () => Promise<unknown>) =>
  assertEquals((await assertRejects(call, kind) as Any).param, param);
await refused(
  BadRequestError,
  "method.type",
  () => jobs.create({ model, training_file: file.id, method: { type: "x" } }),
);
await refused(BadRequestError, null, () => jobs.cancel(job.id));
await refused(NotFoundError, null, () => jobs.retrieve("ftjob-none"));
assert((await client.models.delete(tuned.id)).deleted);
for (const { id } of [file, second]) assert((await client.files.delete(id)).deleted);
await refused(NotFoundError, null, () => client.files.retrieve(file.id));
console.log("checks passed");
