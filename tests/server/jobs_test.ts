/** Files and jobs through their routes: results, states, and restarts after a crash. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { clearJob } from "../../src/server/job_folder.ts";
import { inFolder } from "../testing.ts";
import { type Answer, type Client, completions, JOBS, lines, withJobs } from "./jobs_client.ts";

const texts = (events: Answer) => events.data.map(({ message }: Answer) => message).reverse();

Deno.test("jobs: a model is fine-tuned on uploaded rows, and served with its files", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, tuned, fetch }) => {
      const training_file = await upload(completions(16)), validation_file = await upload(completions(8));
      const made = await post(JOBS, { model: "m", training_file, validation_file, suffix: "abc", seed: 3 });
      assertEquals([made.object, made.model, made.status], ["fine_tuning.job", "m", "validating_files"]);
      const job = await until(made.id, "succeeded"), { data } = await get(`/v1/models`);
      assertMatch(job.fine_tuned_model, /^ft:m:local:abc:[0-9a-f]{8}$/);
      assertEquals(job.hyperparameters, { n_epochs: 3, batch_size: 8, learning_rate_multiplier: 1 });
      assert(data.some(({ id }: Answer) => id === job.fine_tuned_model));
      const { path, base } = tuned.get(job.fine_tuned_model)!;
      assertEquals(base, "m");
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
      const [columns, ...rows] = (await (await fetch("GET", `/v1/files/${job.result_files[2]}/content`)).text()).trim()
        .split("\n").map((row) => row.split(","));
      assertEquals(columns.slice(0, 3), ["step", "train_loss", "train_accuracy"]);
      const steps = events.data.filter(({ message }: Answer) => message.includes("training loss")).reverse();
      assertEquals(
        rows.filter(([, loss]) => loss).map((row) => row.slice(0, 3).map(Number)),
        steps.map(({ data }: Answer) => [data.step, data.train_loss, data.train_mean_token_accuracy]),
      );
      const { data: [{ metrics: last }] } = await get(`${JOBS}/${job.id}/checkpoints`), row = rows.at(-1)!.map(Number);
      assertEquals([last.step, last.train_mean_token_accuracy, last.valid_loss, last.full_valid_mean_token_accuracy], [
        ...[row[0], row[2], row[3], row[4]],
      ]);
      for (const accuracy of [steps[0].data.train_mean_token_accuracy, last.valid_mean_token_accuracy]) {
        const right = accuracy * 40; // 8 rows with 5 learned tokens each
        assert(right > 0 && Math.abs(right - Math.round(right)) < 1e-4, `${right}`);
      }
    })
  ));

/** Returns the results of a job: its models' weights, and the texts of its events. */
async function made({ get, fetch }: Client, id: string) {
  const job = await get(`${JOBS}/${id}`), { data } = await get(`${JOBS}/${id}/events?limit=1000`);
  const files = await Promise.all(job.result_files.map(async (file: string) => {
    const { filename } = await get(`/v1/files/${file}`), response = await fetch("GET", `/v1/files/${file}/content`);
    return [filename, new Uint8Array(await response.arrayBuffer()).toBase64()];
  }));
  const steps = data.filter(({ type }: Answer) => type === "metrics").map(({ message, data }: Answer) => {
    const { tokens_per_second: _, ...numbers } = data;
    return [message, numbers];
  });
  return { files, steps, tokens: job.trained_tokens };
}

Deno.test("jobs: a job that is killed repeatedly gives the same bits, and each event exactly once", () =>
  inFolder(async (folder) => {
    let whole: Awaited<ReturnType<typeof made>> | undefined, id = "", seen = 0;
    const begin = async ({ post, upload }: Client) =>
      (await post(JOBS, {
        ...{ model: "m", training_file: await upload(completions(64)), seed: 7 },
        method: { type: "supervised", supervised: { hyperparameters: { batch_size: 4, n_epochs: 20, lora_rank: 0 } } },
      })).id;
    await withJobs(`${folder}/a`, async (client) => {
      const { id } = await client.until(await begin(client), "succeeded");
      whole = await made(client, id);
    });
    await withJobs(`${folder}/b`, async (client) => {
      id = await begin(client);
    });
    const script = new URL("./jobs_process.ts", import.meta.url).pathname;
    for (let i = 0; i < 5; i++) {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-check", "--allow-all", script, `${folder}/b`, `${seen + 10}`],
        stderr: "inherit",
      }).output();
      seen = new TextDecoder().decode(stdout).split("\n").length - 1;
    }
    await withJobs(`${folder}/b`, async (client) => {
      await client.until(id, "succeeded");
      assertEquals(await made(client, id), whole);
      const { data } = await client.get(`${JOBS}/${id}/events?limit=1000`);
      assert(data.filter(({ message }: Answer) => message === "Fine-tuning job resumed").length >= 3);
    });
  }));

Deno.test("jobs: preference tuning, rewards by graders, and new models trained on texts", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, tuned }) => {
      const begin = async (file: string, more: Record<string, unknown>) => {
        const { id, error } = await post(JOBS, { model: "m", training_file: file, seed: 1, ...more });
        assert(!error, JSON.stringify(error));
        return id;
      };
      const said = (content: string, role: string) => [{ role, content }];
      const pairs = lines(Array.from({ length: 8 }, (_, i) => ({
        input: { messages: said("say something", "user") },
        preferred_output: said("ab".repeat(1 + i % 3), "assistant"),
        non_preferred_output: said("zz", "assistant"),
      })));
      const dpo = { type: "dpo", dpo: { hyperparameters: { beta: 0.2, n_epochs: 1, batch_size: 2 } } };
      const grader = {
        ...{ type: "text_similarity", name: "g", input: "{{sample.output_text}}", reference: "{{item.answer}}" },
        evaluation_metric: "fuzzy_match",
      };
      const reinforcement = {
        ...{ type: "reinforcement" },
        reinforcement: { grader, hyperparameters: { n_epochs: 1, batch_size: 2, compute_multiplier: 0.5 } },
      };
      const prompts = lines(Array.from({ length: 6 }, (_, i) => ({ prompt: "abc"[i % 3], answer: "aaaa" })));
      const text = "so it goes and so it goes on\n".repeat(100);
      const ids = [
        await begin(await upload(pairs), { method: dpo }),
        await begin(await upload(prompts), { method: reinforcement }),
        await begin(await upload(text, "text.txt"), { hyperparameters: { n_epochs: 1 } }),
        await begin(await upload(lines(text.split("\n").slice(0, 40).map((text) => ({ text })))), {
          model: "new:shakespeare_char_cpu",
          hyperparameters: { n_epochs: 2 },
        }),
      ];
      for (const id of ids) {
        const { fine_tuned_model: name, result_files, trained_tokens } = await until(id, "succeeded");
        assert(tuned.has(name) && result_files.length > 3 && trained_tokens > 0, name);
      }
      const events = await get(`${JOBS}/${ids[1]}/events?limit=100`);
      assert(events.data.some(({ data }: Answer) => data?.reward > 0), JSON.stringify(events));
      assertMatch((await get(`${JOBS}/${ids[3]}`)).fine_tuned_model, /^ft:shakespeare_char_cpu:local::/);
    })
  ));

Deno.test("jobs: pause, resume, save and cancel; a repeated request creates no second job", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, tuned, busy, fetch }) => {
      const training_file = await upload(completions(2000)); // enough rows for the job to run longer than the test
      const body = { model: "m", training_file, hyperparameters: { n_epochs: 50, batch_size: 1, lora_rank: 0 } };
      const [one, two] = [await post(JOBS, body), await post(JOBS, body, "one", { "x-stainless-retry-count": "1" })];
      assertEquals(two.id, one.id);
      await until(one.id, "running"); // otherwise the next job, whose file is validated at the same time, could run first
      const three = await post(JOBS, body, "one", { "x-stainless-retry-count": "0", "idempotency-key": "k" });
      const four = await post(JOBS, { ...body, seed: 1 }, "one", { "idempotency-key": "k" });
      assertEquals([three.id === one.id, four.id], [false, three.id]);
      await until(three.id, "queued"); // a key runs one job at a time
      assertEquals((await fetch("DELETE", `/v1/files/${training_file}`)).status, 400);
      const step = async () => {
        const { data } = await get(`${JOBS}/${one.id}/events?limit=100`); // newest first
        return data.find(({ data }: Answer) => data?.step)?.data.step ?? 0;
      };
      while (await step() < 20) await new Promise((resolve) => setTimeout(resolve, 10));
      await post(`${JOBS}/${one.id}/checkpoints`);
      const saved = async () => (await get(`${JOBS}/${one.id}/checkpoints`)).data;
      while ((await saved()).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      const [{ fine_tuned_model_checkpoint: model, step_number, metrics }] = (await saved()).reverse();
      assert(tuned.has(model) && metrics.step === step_number && metrics.train_loss > 0);
      assertEquals((await post(`${JOBS}/${one.id}/pause`)).status, "paused");
      assertEquals((await post(`${JOBS}/${one.id}/pause`)).error.code, "invalid_state");
      await until(three.id, "running");
      const before = await step();
      assertEquals((await post(`${JOBS}/${three.id}/cancel`)).status, "cancelled");
      assertEquals((await post(`${JOBS}/${three.id}/resume`)).error.code, "invalid_state");
      assertEquals((await post(`${JOBS}/${three.id}/checkpoints`)).error.code, "invalid_state");
      assertEquals((await post(`${JOBS}/${one.id}/resume`)).status, "queued");
      await until(one.id, "running");
      while (await step() < before + 20) await new Promise((resolve) => setTimeout(resolve, 10));
      const { data } = await get(`${JOBS}/${one.id}/events?limit=1000`);
      const told = data.filter(({ message }: Answer) => message.includes("training loss")).map(({ data }: Answer) =>
        data.step
      ).reverse();
      assertEquals(told, told.map((_: number, i: number) => told[0] + i * (told[1] - told[0])));
      await post(`${JOBS}/${one.id}/cancel`);
      busy.add(model);
      assertEquals((await (await fetch("DELETE", `/v1/models/${model}`)).json()).error.code, "model_in_use");
      busy.clear();
      assertEquals((await (await fetch("DELETE", `/v1/models/${model}`)).json()).deleted, true);
      assertEquals([tuned.has(model), (await fetch("DELETE", `/v1/models/${model}`)).status], [false, 404]);
      assertEquals((await fetch("DELETE", `/v1/files/${training_file}`)).status, 200);
      const listed = await get(`${JOBS}?limit=1`), next = await get(`${JOBS}?limit=5&after=${listed.last_id}`);
      assertEquals([listed.data[0].id, listed.has_more, next.data.map(({ id }: Answer) => id)], [three.id, true, [
        one.id,
      ]]);
    })
  ));

Deno.test("jobs: a job that finds the disk full resumes when there is room", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, errors }) => {
      await Deno.writeTextFile(`${folder}/jobs/jobs/full`, "");
      const training_file = await upload(completions(8));
      const { id } = await post(JOBS, { model: "m", training_file, hyperparameters: { n_epochs: 1 } });
      await until(id, "succeeded");
      const told = texts(await get(`${JOBS}/${id}/events`)).filter((text: string) => /started|resume/.test(text));
      const full = "The server's disk was full; the job resumes from its last checkpoint";
      assertEquals(told, ["Fine-tuning job started", full, "Fine-tuning job started"]);
      assertMatch(`${errors}`, /^ApiError: The server's disk is full$/);
    }, { roomSeconds: 0.2, worker: new URL("./full_disk_worker.ts", import.meta.url) })
  ));

Deno.test("jobs: a job that ends the server repeatedly fails after five starts", () =>
  inFolder(async (folder) => {
    let id = "";
    await withJobs(folder, async ({ upload, post, jobs }) => {
      const body = { model: "m", training_file: await upload(completions(200)), hyperparameters: { n_epochs: 50 } };
      id = (await post(JOBS, body)).id;
      while (jobs.store.job(id)!.status !== "running") await new Promise((resolve) => setTimeout(resolve, 10));
      await jobs.drain();
      jobs.store.change(id, { status: "running", starts: 4 });
    });
    await withJobs(folder, async ({ jobs }) => {
      // `starts` is 0 after the job has made progress.
      while (jobs.store.job(id)!.state.starts !== 0) await new Promise((resolve) => setTimeout(resolve, 10));
      await jobs.drain();
      jobs.store.change(id, { status: "running", starts: 5 });
    });
    await withJobs(folder, async ({ get }) => {
      const { status, error } = await get(`${JOBS}/${id}`);
      assertEquals([status, error.message], ["failed", "The server ended 5 times before this job made progress"]);
    });
  }));

Deno.test("jobs: clearing a job's folder does not fail when the folder is removed meanwhile", () =>
  inFolder(async (folder) => {
    const removed = async (turns: number) => {
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      await Deno.remove(folder, { recursive: true });
    };
    for (let turns = 0; turns < 40; turns++) {
      await Deno.mkdir(`${folder}/run`, { recursive: true });
      await Promise.all([clearJob(folder), removed(turns)]);
    }
    await Deno.mkdir(folder);
  }));
