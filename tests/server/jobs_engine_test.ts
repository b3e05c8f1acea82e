/**
 * Jobs with the real engine: fine-tuned models are served at once and after a restart, and can be fine-tuned further.
 */
import { assert, assertEquals } from "@std/assert";
import { openJobs } from "../../src/cli/jobs.ts";
import { fallbacks } from "../../src/cli/flags.ts";
import { Progress } from "../../src/cli/progress.ts";
import { serveFlags } from "../../src/cli/serve_flags.ts";
import { createDevice } from "../../src/device/create.ts";
import { generate } from "../../src/generate/generate.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import type { JobRequest } from "../../src/server/job_request.ts";
import { openEngine, type WorkerEngine } from "../../src/server/worker_engine.ts";
import { inFolder, runCommand } from "../testing.ts";
import { completions, lines, save, tokenizer } from "./jobs_client.ts";

const progress = new Progress({ isTerminal: () => false, writeSync: ({ length }) => length });

/** Returns a model's text when it is generated without a server, and its text from the engine. */
async function written(engine: WorkerEngine, model: string, path: string): Promise<[alone: string, served: string]> {
  using device = await createDevice("cpu", { threads: 1 });
  const prompt = [...tokenizer.encode("say ")], alone = await loadPretrained(path, { device, inference: true });
  const options = { maxNewTokens: 8, temperature: 0, eosTokenId: alone.eosTokenIds };
  const tokens = await Array.fromAsync(generate(alone.model, prompt, options));
  const request = { model, prompt, count: 1, maxNewTokens: 8, temperature: 0, topP: 1, seed: 1, stop: [], key: "one" };
  const rest = { logitBias: new Map(), frequencyPenalty: 0, presencePenalty: 0 };
  let text = "";
  for await (const pieces of engine.generate({ ...request, ...rest }, new AbortController().signal).pieces) {
    for (const piece of pieces) text += piece.text;
  }
  return [alone.tokenizer.decode(tokens), text];
}

Deno.test("jobs: fine-tuned models are served, also after a restart, and fine-tuned further or used as graders", () =>
  inFolder(async (folder) => {
    await save(`${folder}/m`);
    const pairs = Array.from(
      { length: 12 },
      (_, i) => ({ prompt: "say ", chosen: "ab"[i % 2].repeat(3), rejected: "z".repeat(3) }),
    );
    await Deno.writeTextFile(`${folder}/pairs.jsonl`, lines(pairs));
    const brief = ["--num_train_epochs=1", "--batch_size=2", "--threads=1", `--out_dir=${folder}/r`];
    const { code, err } = await runCommand(
      "finetune",
      "--task=reward",
      `--data=${folder}/pairs.jsonl`,
      `--init_from=${folder}/m`,
      ...brief,
    );
    assertEquals(code, 0, err);
    const values = { ...fallbacks(serveFlags), jobs: `${folder}/jobs`, slots: 2, threads: 1 };
    const base = { weights: "f32", device: "cpu", threads: 1, slots: 2, cache: "f32" } as const;
    const models = ["m", "r"].map((id) => ({ ...base, id, path: `${folder}/${id}` }));
    const serving = async (
      body: (
        engine: WorkerEngine,
        tune: (model: string, more?: Partial<JobRequest>, text?: string) => Promise<string>,
      ) => Promise<void>,
    ) => {
      await using engine = await openEngine({ models });
      await using jobs = await openJobs(values, engine, progress);
      await body(engine, async (model, more = {}, text = completions(16)) => {
        const form = new FormData();
        form.set("file", new File([text], "a.jsonl"));
        form.set("purpose", "fine-tune");
        const { id: training_file } = await jobs.files.upload(
          new Request("http://localhost", { method: "POST", body: form }),
          "one",
        );
        const request: JobRequest = {
          ...{ model, training_file, validation_file: null, suffix: null, seed: 1, method: { type: "supervised" } },
          ...{ hyperparameters: { n_epochs: 1 }, metadata: null, ...more },
        };
        const { id } = await jobs.create("one", request, { mark: "", again: false });
        for (let i = 0; i < 6000; i++) {
          const { status, state: { tuned, error } } = jobs.find(id, "one");
          assertEquals(error, undefined);
          if (status === "succeeded") return tuned!;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        throw new Error("the job did not end");
      });
    };
    let names: string[] = [];
    const check = async (engine: WorkerEngine) => {
      for (const name of names) {
        const spec = engine.spec(name, "one")!, path = "base" in spec ? spec.run! : spec.path;
        const [alone, served] = await written(engine, name, path);
        assertEquals(served, alone, name);
        assertEquals([engine.spec(name, "two"), engine.spec(name)], [undefined, undefined]);
      }
    };
    await serving(async (engine, tune) => {
      const adapter = await tune("m"), whole = await tune("m", { hyperparameters: { lora_rank: 0, n_epochs: 1 } });
      const grader = {
        type: "score_model",
        name: "g",
        model: "r",
        input: "{{item.prompt}}{{sample.output_text}}",
        range: [-5, 5],
      };
      const method = { type: "reinforcement", reinforcement: { grader } } as const;
      const prompts = lines(Array.from({ length: 4 }, () => ({ prompt: "say " })));
      names = [adapter, whole, await tune("m", { method }, prompts), await tune(adapter), await tune(whole)];
      assert("base" in engine.spec(adapter, "one")! && !("base" in engine.spec(whole, "one")!));
      await check(engine);
    });
    await serving(check);
  }));
