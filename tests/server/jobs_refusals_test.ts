/** Jobs that are refused or fail: jobs of other keys, invalid requests, files with an invalid line. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type Answer, completions, JOBS, withJobs } from "./jobs_client.ts";
import { inFolder } from "../testing.ts";

Deno.test("jobs: a key's files, jobs and models are invisible to other keys and without a key", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, until, fetch }) => {
      const training_file = await upload(completions(8));
      const { id } = await post(JOBS, { model: "m", training_file, hyperparameters: { n_epochs: 1 } });
      const { fine_tuned_model: model, result_files: [result] } = await until(id, "succeeded");
      const paths: [method: string, path: string][] = [
        ...["", "/events", "/checkpoints"].map((end): [string, string] => ["GET", `${JOBS}/${id}${end}`]),
        ...["cancel", "pause", "resume", "checkpoints"].map((
          end,
        ): [string, string] => ["POST", `${JOBS}/${id}/${end}`]),
        ...[["GET", `/v1/files/${training_file}`], ["GET", `/v1/files/${result}/content`]] as [string, string][],
        ...[["DELETE", `/v1/files/${result}`], ["GET", `/v1/models/${model}`], ["DELETE", `/v1/models/${model}`]] as [
          string,
          string,
        ][],
      ];
      for (const [method, path] of paths) {
        assertEquals((await fetch(method, path, {}, "two")).status, 404, path);
        const without = (await fetch(method, path, {}, "")).status;
        assertEquals(without, path.includes("models") && method === "GET" ? 404 : 401, path);
      }
      assertEquals([(await get(JOBS, "two")).data, (await get("/v1/files", "two")).data], [[], []]);
      assertEquals((await get("/v1/models", "two")).data.map(({ id }: Answer) => id), ["m"]);
      // Key two refers to the model, or to the file, of key one.
      const refused = [{ model, training_file: await upload("{}", "b.jsonl", "two") }, { model: "m", training_file }];
      for (const body of refused) assertMatch((await post(JOBS, body, "two")).error.code, /^(model|file)_not_found$/);
      assertEquals((await fetch("POST", JOBS, {}, "")).status, 401);
    })
  ));

Deno.test("jobs: an invalid request is refused with the name of the parameter, and no job is created", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, jobs: { store } }) => {
      const file = await upload(completions(8)), text = await upload("a text", "text.txt");
      store.addFile({ ...store.file(file)!, id: "file-large", bytes: 2 ** 27 + 1 });
      store.addFile({ ...store.file(file)!, id: "file-result", purpose: "fine-tune-results" });
      const grader = {
        type: "string_check",
        name: "g",
        input: "{{sample.output_text}}",
        reference: "{{item.a}}",
        operation: "eq",
      };
      const graded = (grader: unknown) => ({ method: { type: "reinforcement", reinforcement: { grader } } });
      const score = { type: "score_model", name: "g", model: "m", input: [{ role: "user", content: "{{item.a}}" }] };
      const cases: [more: Record<string, unknown>, param: string | null][] = [
        [{ model: undefined }, "model"],
        [{ model: "other" }, "model"],
        [{ model: "new:../../config/x" }, "model"],
        [{ model: "new:finetune_shakespeare" }, "model"],
        [{ model: "new:shakespeare_char_cpu", method: { type: "dpo" } }, "method.type"],
        [{ training_file: "file-1" }, "training_file"],
        [{ training_file: 5 }, "training_file"],
        [{ training_file: "file-large" }, "training_file"],
        [{ validation_file: "file-result" }, "validation_file"],
        [{ training_file: text, method: { type: "dpo" } }, "training_file"],
        [{ validation_file: "file-1" }, "validation_file"],
        [{ suffix: "x".repeat(65) }, "suffix"],
        [{ suffix: "a:b" }, "suffix"],
        [{ seed: -1 }, "seed"],
        [{ integrations: [{ type: "wandb" }] }, "integrations"],
        [{ metadata: { a: 1 } }, "metadata[a]"],
        [{ metadata: { ["a".repeat(65)]: "b" } }, "metadata"],
        [{ method: { type: "magic" } }, "method.type"],
        [{ method: { type: "supervised", dpo: {} } }, "method.dpo"],
        [
          { method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 51 } } } },
          "method.supervised.hyperparameters.n_epochs",
        ],
        [{ hyperparameters: { batch_size: "many" } }, "hyperparameters.batch_size"],
        [{ hyperparameters: { learning_rate_multiplier: 0 } }, "hyperparameters.learning_rate_multiplier"],
        [{ method: { type: "dpo", dpo: { hyperparameters: { beta: 3 } } } }, "method.dpo.hyperparameters.beta"],
        [{ method: { type: "reinforcement" } }, "method.reinforcement"],
        [graded(undefined), "method.reinforcement.grader"],
        [graded({ type: "python", name: "g", source: "import os" }), "method.reinforcement.grader.type"],
        [graded({ type: "multi", graders: {}, calculate_output: "1" }), "method.reinforcement.grader.type"],
        [graded({ ...grader, operation: "exec" }), "method.reinforcement.grader.operation"],
        [
          graded({ ...grader, input: "{{ item.constructor.constructor('x')() }}" }),
          "method.reinforcement.grader.input",
        ],
        [graded({ ...score, model: "other" }), "method.reinforcement.grader.model"],
        [graded({ ...score, range: [1, 0] }), "method.reinforcement.grader.range"],
        [{ unknown: 1 }, "unknown"],
      ];
      for (const [more, param] of cases) {
        const { error } = await post(JOBS, { model: "m", training_file: file, ...more });
        assertEquals(error?.param, param, JSON.stringify([more, error]));
      }
      assertEquals((await get(JOBS)).data, []);
    })
  ));

Deno.test("jobs: an invalid line fails the job, and the error names the line without the server's paths", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get, errors }) => {
      const good = completions(3), line = (row: unknown) => good + JSON.stringify(row) + "\n";
      const dpo = { type: "dpo" };
      const cases: [file: string, message: RegExp, method?: unknown][] = [
        [good + '{"prompt": \n', /^line 4: not JSON/],
        [line({ prompt: "a" }), /^line 4: expected "messages", "prompt" and "completion", or "text"$/],
        [line({ messages: [{ role: "user", content: "a" }] }), /^line 4: messages: no message is the assistant's/],
        [line({ messages: [{ role: "user", content: { image: 1 } }] }), /^line 4: messages\[0\]\.content: expected/],
        [
          line({ messages: [{ role: "user", content: "a" }, { role: "assistant", content: "a", weight: 2 }] }),
          /^line 4: messages\[1\]\.weight/,
        ],
        [good, /^line 1: expected "input"/, dpo],
        [line({ prompt: "\u2603", completion: "a" }), /^line 4: .*☃/],
        [completions(1), /^the file has one row/],
      ];
      const made: [id: string, message: RegExp][] = [];
      for (const [text, message, method] of cases) {
        const { id } = await post(JOBS, { model: "m", training_file: await upload(text), method });
        made.push([id, message]);
      }
      for (const [id, message] of made) {
        let job: Answer;
        do {
          await new Promise((resolve) => setTimeout(resolve, 20));
          job = await get(`${JOBS}/${id}`);
        } while (job.finished_at === null);
        assertEquals([job.status, job.error.code, job.error.param], [
          "failed",
          "invalid_training_file",
          "training_file",
        ]);
        assertMatch(job.error.message, message);
        assert(!job.error.message.includes(folder));
      }
      assertEquals(errors, []);
    })
  ));

Deno.test("jobs: a failed or cancelled job leaves nothing on the disk", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, until }) => {
      const bad = await upload(completions(4) + "{}\n"),
        { id: failed } = await post(JOBS, {
          model: "m",
          training_file: bad,
        });
      await until(failed, "failed");
      const training_file = await upload(completions(2000)), hyperparameters = { n_epochs: 50, batch_size: 1 };
      const { id: cancelled } = await post(JOBS, { model: "m", training_file, hyperparameters });
      await until(cancelled, "running");
      await post(`${JOBS}/${cancelled}/cancel`);
      const left = () =>
        [failed, cancelled].flatMap((id) => [...Deno.readDirSync(`${folder}/jobs/jobs/${id}`)].map(({ name }) => name))
          .filter((name) => name !== "checkpoints");
      for (let i = 0; i < 3000 && left().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals(left(), []);
    })
  ));

Deno.test("jobs: a file that needs too much memory fails its job, and the server continues", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, get }) => {
      const training_file = await upload(completions(2) + `{"prompt": [${"[],".repeat(5e6)}1]}\n`);
      const { id } = await post(JOBS, { model: "m", training_file });
      let job: Answer;
      do {
        await new Promise((resolve) => setTimeout(resolve, 20));
        job = await get(`${JOBS}/${id}`);
      } while (job.finished_at === null);
      assertMatch(
        job.error.message,
        /^after row \d+: (a row takes more than 64 MB of memory|64 rows took more than 1 s to read)$/,
      );
    })
  ));

Deno.test("jobs: a key's bytes and jobs are limited", () =>
  inFolder((folder) =>
    withJobs(folder, async ({ upload, post, until, jobs: { store } }) => {
      const training_file = await upload(completions(8)), stored = store.file(training_file)!;
      const turns = Array.from({ length: 40 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "abc" }));
      const chat = await upload(JSON.stringify({ messages: turns }));
      const leave = (bytes: number) => { // leaves this many bytes of the key's storage
        store.removeFile("file-large");
        const large = 2 * 2 ** 30 - store.usedBy(stored.owner) - bytes;
        store.addFile({ ...stored, id: "file-large", bytes: large });
      };
      leave(0);
      assertEquals(await upload("a"), undefined); // the answer is an error without an id
      assert(await upload("a", "a.txt", "two") !== undefined);
      // A job needs a copy of its file, until it ends.
      const body = { model: "m", training_file, hyperparameters: { n_epochs: 1 } };
      const refusal = (await post(JOBS, body)).error;
      assertEquals([refusal.code, refusal.param], ["storage_limit_exceeded", "training_file"]);
      leave(2 * stored.bytes - 1);
      const { id } = await post(JOBS, body);
      assertEquals((await post(JOBS, body)).error.code, "storage_limit_exceeded");
      await until(id, "succeeded");
      leave(2 * store.file(chat)!.bytes); // less than its copy with a row for each of the 20 answers
      const { id: long } = await post(JOBS, { model: "m", training_file: chat });
      while (store.job(long)!.finished === null) await new Promise((resolve) => setTimeout(resolve, 20));
      assertMatch(
        store.job(long)!.state.error!.message,
        /^the job's copy of the file, with a row for each answer, has more than the \d+ bytes left/,
      );
      store.removeFile("file-large");
      const { state } = store.job(id)!;
      for (let i = 1; i < 100; i++) {
        store.addJob(
          { id: `ftjob-${i}`, owner: stored.owner, created: 1, finished: null, status: "paused", state },
          null,
        );
      }
      assertEquals((await post(JOBS, { model: "m", training_file })).error.code, "job_limit_exceeded");
      store.change("ftjob-1", { status: "cancelled" });
      assertEquals((await post(JOBS, { model: "m", training_file })).error, null);
    })
  ));
