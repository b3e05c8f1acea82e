/** Files and jobs, through their routes: what clients get, what is refused, and what is there after the end of a process. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { jobConfigs, jobWorker } from "../../src/cli/jobs.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { Access, KeyRing } from "../../src/server/auth.ts";
import { Jobs, type JobsOptions, type TunedModel } from "../../src/server/jobs.ts";
import { handler } from "../../src/server/routes.ts";
import { jobRoutes } from "../../src/server/routes_jobs.ts";
import { modelRoutes } from "../../src/server/routes_models.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { inFolder } from "../testing.ts";
import { FakeEngine, served } from "./fake_engine.ts";

const tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvwxyz <>|_\n"], { special: ["<|endoftext|>"] });

/** A model of some thousand weights. */
async function save(path: string): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const { vocabSize } = tokenizer, sizes = { vocabSize, blockSize: 32, nLayer: 1, nHead: 2, nEmbd: 16 };
  await saveHuggingFace(new GPT(sizes, { device, seed: 5 }), path, { tokenizer });
}

// deno-lint-ignore no-explicit-any -- what a client reads of an answer
type Answer = any;

/** What a test asks a server. */
interface Client {
  readonly jobs: Jobs;
  readonly engine: FakeEngine;
  /** Models that jobs have made. */ readonly tuned: Map<string, TunedModel>;
  readonly errors: unknown[];
  /** @param as whose key; "" for none */
  fetch(method: string, path: string, init?: RequestInit, as?: string): Promise<Response>;
  get(path: string, as?: string): Promise<Answer>;
  post(path: string, body?: unknown, as?: string, headers?: Record<string, string>): Promise<Answer>;
  upload(text: string, name?: string, as?: string): Promise<string>;
  /** Waits until a job has come to one of these. */
  until(id: string, ...statuses: string[]): Promise<Answer>;
}

/** With jobs in a folder, whose keys are `one` and `two`. */
async function withJobs(
  folder: string,
  body: (client: Client) => Promise<void>,
  options: Partial<JobsOptions> = {},
): Promise<void> {
  if (!await Deno.stat(`${folder}/m`).catch(() => undefined)) await save(`${folder}/m`);
  const engine = new FakeEngine([served("m", tokenizer)]),
    tuned = new Map<string, TunedModel>(),
    errors: unknown[] = [];
  const publisher = {
    models: (key?: string) => engine.models(key),
    source: (id: string, key?: string) =>
      id === "m" ? `${folder}/m` : tuned.get(id)?.owner === key ? tuned.get(id)?.path : undefined,
    list(model: TunedModel) {
      tuned.set(model.id, model);
      engine.all.push(served(model.id, tokenizer, { owner: model.owner, loaded: false }));
    },
    unlist(id: string) {
      tuned.delete(id);
      engine.all.splice(engine.all.findIndex((one) => one.id === id), 1);
    },
    busy: () => false,
  };
  const onError = (error: unknown) => void errors.push(error);
  await using jobs = await Jobs.open({
    ...{
      folder: `${folder}/jobs`,
      publisher,
      worker: jobWorker,
      configs: Object.keys(jobConfigs),
      threads: 1,
      onError,
    },
    ...options,
  });
  const keys = await KeyRing.open(`${folder}/keys.json`), of = new Map([["", ""]]);
  for (const name of ["one", "two"]) of.set(name, `Bearer ${(await keys.make(name)).key}`);
  // The same names are the same owners, also after a restart.
  const ids = new Map(keys.keys.map(({ id, name }) => [name, id] as const)), find = keys.find.bind(keys);
  const first = new Map<string, string>();
  for (const { id, name } of keys.keys) if (!first.has(name)) first.set(name, id);
  keys.find = async (key) => {
    const id = await find(key), name = [...ids].find(([, one]) => one === id)?.[0];
    return name === undefined ? id : first.get(name);
  };
  const access = new Access({ keys, hostname: "127.0.0.1" });
  const answer = handler({ engine, access, onError }, [...modelRoutes, ...jobRoutes(jobs)]);
  const fetch: Client["fetch"] = async (method, path, init = {}, as = "one") => {
    const headers = new Headers(init.headers);
    headers.set("host", "127.0.0.1:80");
    if (as) headers.set("authorization", of.get(as)!);
    return await answer(new Request(`http://127.0.0.1${path}`, { ...init, method, headers }));
  };
  const get: Client["get"] = async (path, as) => await (await fetch("GET", path, {}, as)).json();
  await body({
    ...{ jobs, engine, tuned, errors, fetch, get },
    async post(path, body = {}, as, headers = {}) {
      const init = { body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers } };
      return await (await fetch("POST", path, init, as)).json();
    },
    async upload(text, name = "rows.jsonl", as) {
      const form = new FormData();
      form.set("purpose", "fine-tune");
      form.set("file", new File([text], name));
      const { id } = await (await fetch("POST", "/v1/files", { body: form }, as)).json();
      return id;
    },
    async until(id, ...statuses) {
      for (let i = 0; i < 1200; i++) {
        const job = await get(`/v1/fine_tuning/jobs/${id}`);
        if (statuses.includes(job.status)) return job;
        assert(!/failed|cancelled|succeeded/.test(job.status), JSON.stringify([job, errors]));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error("the job does not end");
    },
  });
}

const lines = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");
const completions = (count: number) =>
  lines(Array.from({ length: count }, (_, i) => ({ prompt: "say ", completion: "abcdefgh"[i % 8].repeat(4) })));
const texts = (events: Answer) => events.data.map(({ message }: Answer) => message).reverse();

Deno.test("jobs: rows are uploaded, a model is tuned, and it is there with its files", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, tuned, fetch }) => {
      const training_file = await upload(completions(16));
      const made = await post("/v1/fine_tuning/jobs", { model: "m", training_file, suffix: "abc", seed: 3 });
      assertEquals([made.object, made.model, made.status], ["fine_tuning.job", "m", "validating_files"]);
      const job = await until(made.id, "succeeded"), { data } = await get(`/v1/models`);
      assertMatch(job.fine_tuned_model, /^ft:m:local:abc:[0-9a-f]{8}$/);
      assertEquals(job.hyperparameters, { n_epochs: 3, batch_size: 8, learning_rate_multiplier: 1 });
      assert(data.some(({ id }: Answer) => id === job.fine_tuned_model));
      const { path, adapter } = tuned.get(job.fine_tuned_model)!;
      assertEquals(adapter?.base, "m");
      using device = await createDevice("cpu", { threads: 1 });
      await loadPretrained(path, { device });
      const names = await Promise.all(
        job.result_files.map(async (id: string) => (await get(`/v1/files/${id}`)).filename),
      );
      assertEquals(names, [
        "adapter_config.json",
        "adapter_model.safetensors",
        "step_metrics.csv",
        "tokenizer.json",
        "tokenizer_config.json",
      ]);
      const config = await (await fetch("GET", `/v1/files/${job.result_files[0]}/content`)).json();
      assertEquals(config.base_model_name_or_path, "m");
      const events = await get(`/v1/fine_tuning/jobs/${job.id}/events?limit=100`);
      assertEquals(texts(events).filter((text: string) => !text.startsWith("Step")), [
        ...[`Created fine-tuning job: ${job.id}`, `Validating training file: ${training_file}`],
        ...["Files validated, moving job to queued state", "Fine-tuning job started"],
        ...["Checkpoint created at step 2", "Checkpoint created at step 4", "Checkpoint created at step 6"],
        ...[`New fine-tuned model created: ${job.fine_tuned_model}`, "The job has successfully completed"],
      ]);
    })
  ));
