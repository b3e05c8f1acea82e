/** Files and jobs over a fake engine, for tests, with a small model and two keys. */
import { assert } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { jobConfigs, jobWorker } from "../../src/cli/jobs.ts";
import { createDevice } from "../../src/device/create.ts";
import { ConfigError } from "../../src/errors.ts";
import { exists, readJson } from "../../src/files/files.ts";
import { Lock } from "../../src/files/locks.ts";
import { GPT } from "../../src/gpt.ts";
import { Access, KeyRing } from "../../src/server/auth.ts";
import { Jobs, type JobsOptions, type TunedModel } from "../../src/server/jobs.ts";
import { handler } from "../../src/server/routes.ts";
import { jobRoutes } from "../../src/server/routes_jobs.ts";
import { modelRoutes } from "../../src/server/routes_models.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { FakeEngine, served } from "./fake_engine.ts";

export const tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvwxyz <>|_\n"], {
  special: ["<|endoftext|>"],
});

/** Saves a model with a few thousand weights in a folder. */
export async function save(path: string): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const { vocabSize } = tokenizer, sizes = { vocabSize, blockSize: 64, nLayer: 1, nHead: 2, nEmbd: 16 };
  await saveHuggingFace(new GPT(sizes, { device, seed: 5 }), path, { tokenizer });
}

// deno-lint-ignore no-explicit-any -- the JSON of an answer
export type Answer = any;

/** A test's access to the server. */
export interface Client {
  readonly jobs: Jobs;
  readonly engine: FakeEngine;
  /** Models that jobs have made. */ readonly tuned: Map<string, TunedModel>;
  readonly errors: unknown[];
  /** Models that are in use. */ readonly busy: Set<string>;
  /** Sends a request. @param as the key's name; "" sends no key */
  fetch(method: string, path: string, init?: RequestInit, as?: string): Promise<Response>;
  get(path: string, as?: string): Promise<Answer>;
  post(path: string, body?: unknown, as?: string, headers?: Record<string, string>): Promise<Answer>;
  upload(text: string, name?: string, as?: string): Promise<string>;
  /** Waits until a job has one of these statuses. */
  until(id: string, ...statuses: string[]): Promise<Answer>;
}

/** Runs `body` with a server whose jobs are in a folder, and with the keys `one` and `two`. */
export async function withJobs(
  folder: string,
  body: (client: Client) => Promise<void>,
  options: Partial<JobsOptions> = {},
): Promise<void> {
  if (!await exists(`${folder}/m`)) await save(`${folder}/m`);
  const engine = new FakeEngine([served("m", tokenizer)]),
    tuned = new Map<string, TunedModel>(),
    errors: unknown[] = [],
    busy = new Set<string>();
  const publisher = {
    models: (key?: string) => engine.models(key),
    source: (id: string, key?: string) =>
      id === "m" ? `${folder}/m` : tuned.get(id)?.owner === key ? tuned.get(id)?.path : undefined,
    list(model: TunedModel) {
      tuned.set(model.id, model);
      engine.all.push(served(model.id, tokenizer, { owner: model.owner, loaded: false }));
      return Promise.resolve();
    },
    unlist(id: string) {
      if (busy.has(id)) throw new ConfigError("busy");
      tuned.delete(id);
      engine.all.splice(engine.all.findIndex((one) => one.id === id), 1);
    },
  };
  const onError = (error: unknown) => void errors.push(error);
  using _ = await Lock.take(`${folder}/jobs`);
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
  // The keys are stored, so that a second server with this folder has the same two keys.
  const keys = await KeyRing.open(`${folder}/keys.json`), kept = `${folder}/test_keys.json`;
  const of: Record<string, string> = await exists(kept) ? await readJson(kept) as Record<string, string> : {};
  for (const name of ["one", "two"]) of[name] ??= (await keys.make(name)).key;
  await Deno.writeTextFile(kept, JSON.stringify(of));
  const access = new Access({ keys, hostname: "127.0.0.1" });
  const answer = handler({ engine, access, onError }, [...modelRoutes, ...jobRoutes(jobs)]);
  const fetch: Client["fetch"] = async (method, path, init = {}, as = "one") => {
    const headers = new Headers(init.headers);
    headers.set("host", "127.0.0.1:80");
    if (as) headers.set("authorization", `Bearer ${of[as]}`);
    return await answer(new Request(`http://127.0.0.1${path}`, { ...init, method, headers }));
  };
  const get: Client["get"] = async (path, as) => await (await fetch("GET", path, {}, as)).json();
  await body({
    ...{ jobs, engine, tuned, errors, busy, fetch, get },
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
      for (let i = 0; i < 6000; i++) {
        const job = await get(`/v1/fine_tuning/jobs/${id}`);
        if (statuses.includes(job.status)) return job;
        assert(!/failed|cancelled|succeeded/.test(job.status), JSON.stringify([job, errors]));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error("the job did not end");
    },
  });
}

export const JOBS = "/v1/fine_tuning/jobs";
export const lines = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");
export const completions = (count: number) =>
  lines(Array.from({ length: count }, (_, i) => ({ prompt: "say ", completion: "abcdefgh"[i % 8].repeat(4) })));
