/**
 * The page of `deno task serve`, with clicks and keys as of a user, and with a fake engine that generates letters in
 * alphabetical order.
 * NANOGPT_SCREENSHOTS names a folder for screenshots.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { KeyRing } from "../../src/server/auth.ts";
import { notFound } from "../../src/server/errors.ts";
import { type Route, route } from "../../src/server/routes.ts";
import { pageRoutes } from "../../src/server/routes_page.ts";
import { type Server, withServer } from "../server/fake_engine.ts";
import { browserTest, type Page } from "./browser.ts";

const screenshots = Deno.env.get("NANOGPT_SCREENSHOTS") ?? await Deno.makeTempDir();
const PHONE = { width: 390, height: 844 };

/** The server of the running test. */
let server: Server;
async function begin(more: readonly Route[] = [], keys?: KeyRing) {
  const begun = Promise.withResolvers<void>(), over = Promise.withResolvers<void>();
  const routes = [...await pageRoutes(), ...more];
  const ended = withServer(async (given) => {
    server = given;
    begun.resolve();
    await over.promise;
  }, { more: routes, access: keys ? { keys } : {} });
  await begun.promise;
  return {
    url: server.url,
    async [Symbol.asyncDispose]() {
      over.resolve();
      await ended;
    },
  };
}

const valueOf = (page: Page, id: string) =>
  page.evaluate((id) => (document.getElementById(id) as HTMLTextAreaElement).value, id);
const textIs = (page: Page, id: string, text: string) =>
  page.waitForFunction(([id, text]) => document.getElementById(id)!.textContent!.includes(text), [id, text]);
const ready = (page: Page) =>
  page.waitForFunction(() => (document.getElementById("model") as HTMLSelectElement).value !== "");
const caret = (page: Page, at: number) =>
  page.evaluate((at) => {
    const area = document.getElementById("manuscript") as HTMLTextAreaElement;
    area.focus();
    area.setSelectionRange(at, at);
  }, at);

/** Waits until the engine is idle. */
async function free(): Promise<void> {
  for (let waited = 0; server.engine.running > 0; waited += 20) {
    assert(waited < 60_000, "the engine is still generating");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Takes a wide and a narrow screenshot of a part, and checks that nothing is wider than a phone's screen. */
async function pictures(page: Page, name: string): Promise<void> {
  for (const [width, size] of [["1280", { width: 1280, height: 900 }], ["390", PHONE]] as const) {
    await page.setViewportSize(size);
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: `${screenshots}/${name}-${width}.png`, fullPage: true });
  }
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assertEquals([content, window], [PHONE.width, PHONE.width], name);
  await page.setViewportSize({ width: 1280, height: 900 });
}

for (const colorScheme of ["light", "dark"] as const) {
  browserTest({ name: `the served page, ${colorScheme}: write`, server: begin, colorScheme }, async (page) => {
    await ready(page);
    await page.fill("#manuscript", "hello a"); // the page requests the next token's distribution by itself
    await textIs(page, "bars", "a");
    assertEquals((await page.textContent("#bars-title")).trim(), "Next token");
    assertEquals(server.engine.requests.at(-1)!.maxNewTokens, 1);

    await page.fill("[name=length]", "5");
    await page.fill("[name=seed]", "77");
    await page.fill("[name=temperature]", "0.5");
    await page.click("#go");
    await textIs(page, "write-state", "5 tokens");
    await page.waitForFunction(() => document.getElementById("go")!.textContent === "Continue");
    assertEquals(await valueOf(page, "manuscript"), "hello abcdef");
    await textIs(page, "bars-note", "Choose a token to insert"); // the page has requested the next token's distribution
    const { temperature, seed, maxNewTokens, topLogprobs } = server.engine.requests.at(-2)!;
    assertEquals([temperature, seed, maxNewTokens, topLogprobs], [0.5, 77, 5, 20]);
    const shades = await page.evaluate(() =>
      [...document.querySelectorAll("#shade span")].map(({ textContent, className }) => [textContent, className.trim()])
    );
    // Only f is shaded: the probability of b is e^(−2/8) = 0.78, and the probability of f is e^(−6/8) = 0.47.
    assertEquals(shades, [["b", ""], ["c", ""], ["d", ""], ["e", ""], ["f", "p3"]]);

    // Replacing a token: the model continues from there, and undo restores the text.
    await caret(page, 8);
    await textIs(page, "bars-title", "Instead of this token");
    assertEquals(await page.evaluate(() => document.querySelector("#bars .now code")!.textContent), "c");
    const before = await page.evaluate(() => document.querySelector("#bars .share")!.textContent);
    await page.fill("[name=temperature]", "0"); // the bars change at once, without a request
    const asked = server.engine.requests.length;
    assertEquals(await page.evaluate(() => document.querySelector("#bars .share")!.textContent), "100 %");
    assert(before !== "100 %");
    assertEquals(server.engine.requests.length, asked);
    await page.click("#bars li:nth-child(8) button"); // h
    await page.waitForFunction(() =>
      (document.getElementById("manuscript") as HTMLTextAreaElement).value.length === 14
    );
    assertEquals(await valueOf(page, "manuscript"), "hello abhijklm");
    await page.waitForFunction(() => document.getElementById("go")!.textContent === "Continue");
    await pictures(page, `write-${colorScheme}`);
    await page.click("#undo");
    await page.click("#undo");
    assertEquals(await valueOf(page, "manuscript"), "hello abcdef");
    await page.click("#redo");
    assertEquals(await valueOf(page, "manuscript"), "hello abh");

    // If the model writes in the middle of a text, the text after the caret is not changed.
    await page.fill("#manuscript", "k and z.");
    await caret(page, 1);
    await page.press("#manuscript", "Control+Enter");
    await page.waitForFunction(() =>
      (document.getElementById("manuscript") as HTMLTextAreaElement).value === "klmnop and z."
    );
    await page.waitForFunction(() => document.getElementById("go")!.textContent === "Continue");
    await page.press("#manuscript", "Control+z");
    assertEquals(await valueOf(page, "manuscript"), "k and z.");
    await page.click("#score");
    await textIs(page, "write-state", "nats per token");
    assertEquals(await page.evaluate(() => document.querySelectorAll("#shade span").length), 7, "all but the first");

    // If a text is longer than the context, the page sends the end of the text. It generates the 80 tokens by several
    // requests.
    await page.fill("#manuscript", "a".repeat(500));
    await page.fill("[name=length]", "80");
    await page.click("#go");
    await textIs(page, "write-state", "80 tokens");
    assertEquals((await valueOf(page, "manuscript")).length, 580);

    // Stopping does not remove the text that has been generated, and aborts the engine's request.
    server.engine.holdAt = server.engine.tokens + 5; // the page may request one for the bars
    await page.click("#go");
    await page.waitForFunction(() => (document.getElementById("manuscript") as HTMLTextAreaElement).value.length > 582);
    await page.press("#manuscript", "Escape");
    await page.waitForFunction(() => document.getElementById("go")!.textContent === "Continue");
    await free();
    assert(await page.evaluate(() => document.getElementById("error")!.hidden));

    // The server's error is shown.
    await page.fill("#manuscript", "ABC");
    await textIs(page, "error", "the character U+0041");
  });

  browserTest({ name: `the served page, ${colorScheme}: chat`, server: begin, colorScheme }, async (page) => {
    await ready(page);
    await page.press("#tab-write", "ArrowRight");
    assert(await page.isVisible("#chat"));
    await textIs(page, "no-template", "letters has no chat template");
    assert(await page.isDisabled("#draft"));
    await page.click("#no-template button");
    await page.fill("[name=length]", "6");
    await page.fill("#draft", "ba a");
    await page.press("#draft", "Enter");
    await page.waitForFunction(() => document.querySelectorAll("#turns .assistant .note").length === 1);
    const turns = () => page.evaluate(() => [...document.querySelectorAll("#turns p")].map((p) => p.textContent));
    const [, answer] = await turns();
    assertEquals(answer!.length, 6);
    await textIs(page, "turns", "6 tokens");

    // An edited message removes the turns after it.
    await page.click("#turns .user .tools button");
    await page.fill("#turns textarea", "hello");
    await page.selectOption("#model", "letters"); // another model, and back: the edited text is not lost
    await page.selectOption("#model", "chats");
    await page.click("#turns .user .primary");
    await page.waitForFunction(() => document.querySelectorAll("#turns .assistant .note").length === 1);
    assertEquals((await turns())[0], "hello");

    // The user chooses between two answers. The better one stays in the chat, and both become a row for fine-tuning,
    // which is still there after a reload.
    await page.fill("#draft", "which");
    await page.click("#two");
    await page.waitForFunction(() => document.querySelectorAll(".rivals button:enabled").length === 2);
    const rivals = await page.evaluate(() => [...document.querySelectorAll(".rivals p")].map((p) => p.textContent));
    assert(rivals[0] !== rivals[1]);
    await pictures(page, `chat-${colorScheme}`);
    await page.click(".rivals article:nth-child(2) button");
    assertEquals((await turns()).at(-1), rivals[1]);
    await page.goto(server.url + "/?reloaded#chat");
    await ready(page);
    assertEquals(await valueOf(page, "model"), "chats"); // the chosen model, which is not the first one
    await page.waitForFunction(() => document.querySelectorAll("#turns > li").length === 4);
    await textIs(page, "preference-count", "1 choice");
    const [row] = await page.evaluate(() => JSON.parse(localStorage.getItem("nanogpt preferences")!));
    assertEquals(row.prompt.map(({ role }: { role: string }) => role), ["user", "assistant", "user"]);
    assertEquals([row.chosen, row.rejected], rivals.toReversed().map((content) => [{ role: "assistant", content }]));

    server.engine.holdAt = server.engine.tokens + 3;
    await page.fill("#draft", "stop");
    await page.press("#draft", "Enter");
    await page.waitForFunction(() =>
      (document.querySelectorAll("#turns .assistant p")[2]?.textContent ?? "").length > 1
    );
    await page.press("#draft", "Escape");
    await textIs(page, "turns", "stopped; the first 2 turns no longer fit");
    await free();
    assertEquals(server.engine.left, 1);
  });
}

browserTest({ name: "the served page: markup in texts stays text", server: begin }, async (page) => {
  await ready(page); // the page stores its own empty chat until then
  const markup = "<img src=x onerror=document.title='run'><b>bold</b>";
  await page.evaluate(
    (content) =>
      sessionStorage.setItem(
        "nanogpt chat",
        JSON.stringify([{ role: "user", content }, { role: "assistant", content, note: content }]),
      ),
    markup,
  );
  await page.goto(server.url + "/?again#chat");
  await page.waitForFunction(() => document.querySelectorAll("#turns > li").length === 2);
  await page.click("#tab-write");
  await page.fill("#manuscript", markup);
  await textIs(page, "error", "the character");
  const found = await page.evaluate(() => [document.querySelectorAll("main b, main img").length, document.title]);
  assertEquals(found, [0, "nanogpt-ts"]);
  assertStringIncludes(await page.textContent("#turns"), markup);
  assertStringIncludes(await page.textContent("#shade"), markup);
  // Even if markup got into the page, its script would not run.
  const ran = await page.evaluate(async () => {
    const script = document.createElement("script");
    script.textContent = "document.title = 'run'";
    document.body.append(script);
    await fetch("https://example.org/").catch(() => document.body.dataset.fetched = "refused");
    return [document.title, document.body.dataset.fetched];
  });
  assertEquals(ran, ["nanogpt-ts", "refused"]);
});

/** Fake routes for jobs. */
function fakeJobs() {
  const job = {
    ...{
      id: "ftjob-1",
      object: "fine_tuning.job",
      created_at: 1700000000,
      model: "letters",
      fine_tuned_model: null as string | null,
    },
    ...{ status: "running", error: null, result_files: [] },
  };
  const events = [{
    id: "e0",
    object: "fine_tuning.job.event",
    created_at: 1700000000,
    level: "info",
    message: "Begun",
    data: {},
  }];
  const step = (step: number) => {
    const data = step % 5 === 0
      ? { valid_loss: 3 - step / 20, train_loss: 9 }
      : { train_loss: 3 - step / 20, learning_rate: 1e-3 };
    const message = `Step ${step}/20`, created_at = 1700000000 + 2 * step, object = "fine_tuning.job.event";
    events.push({
      id: `e${step}`,
      object,
      created_at,
      level: "info",
      message,
      data: { step, total_steps: 20, ...data },
    });
  };
  const done: string[] = [], bodies: unknown[] = [], all = "/v1/fine_tuning/jobs";
  const on = (
    method: "GET" | "POST",
    path: string,
    answer: (call: { request: Request; query: URLSearchParams; verb: string }) => unknown,
  ): Route =>
    route({
      ...{ method, path, audience: "key", summary: "", answers: {} },
      answer: async ({ request, path }) => {
        const found = await answer({ request, query: new URL(request.url).searchParams, verb: path.verb });
        return Response.json(found);
      },
    });
  const routes = [
    on("GET", "/v1/runs", () => ({ data: [] })),
    on("GET", "/v1/files", () => ({ data: [] })),
    on("POST", "/v1/files", async ({ request }) => {
      const form = await request.formData(), file = form.get("file") as File;
      done.push(`${form.get("purpose")} ${file.name} ${await file.text()}`);
      return { id: "file-1" };
    }),
    on("GET", all, () => ({ data: [job], has_more: false })),
    on("POST", all, async ({ request }) => {
      bodies.push(await request.json());
      return job;
    }),
    on("GET", `${all}/{job}/events`, ({ query }) => {
      const rest = events.toReversed(), from = rest.findIndex(({ id }) => id === query.get("after")) + 1;
      return { data: rest.slice(from, from + 3), has_more: from + 3 < rest.length }; // short pages, to test paging
    }),
    on("GET", `${all}/{job}/checkpoints`, () => ({
      data: [{ id: "c", step_number: 10, fine_tuned_model_checkpoint: "letters", metrics: { valid_loss: 2.5 } }],
      has_more: false,
    })),
    on("POST", `${all}/{job}/{verb}`, ({ verb }) => {
      if (verb === "cancel") throw notFound("There is no such job");
      done.push(verb);
      job.status = { pause: "paused", resume: "running" }[verb] ?? job.status;
      return job;
    }),
  ];
  return { job, step, done, bodies, routes };
}

const keys = await KeyRing.open(`${await Deno.makeTempDir()}/keys.json`), { key } = await keys.make("test");
for (const colorScheme of ["light", "dark"] as const) {
  const jobs = fakeJobs();
  for (let step = 1; step <= 8; step++) jobs.step(step);
  browserTest(
    { name: `the served page, ${colorScheme}: runs`, server: () => begin(jobs.routes, keys), colorScheme },
    async (page) => {
      await ready(page);
      await page.click("#tab-runs");
      await textIs(page, "runs-closed", "Jobs need a key");
      await page.click("#key-button");
      await page.fill("#key", key);
      await page.press("#key", "Enter");
      await textIs(page, "run-figures", "8 of 20");
      const figures = () =>
        page.evaluate(() => [...document.querySelectorAll("#run-figures dd")].map((dd) => dd.textContent));
      // Step 8 and its loss, the loss of the evaluation at step 5, and the time for the remaining 12 steps of 2 s.
      assertEquals(await figures(), ["8 of 20", "2.6000", "2.7500", "1.00e-3", "–", "about 24 s"]);
      assertStringIncludes(await page.textContent("#run-events"), "Step 1/20");
      const points = () =>
        page.evaluate(() => document.querySelector("#losses polyline")!.getAttribute("points")!.split(" ").length);
      assertEquals(await points(), 7);
      for (let step = 9; step <= 12; step++) jobs.step(step); // while the page is watching
      await textIs(page, "run-figures", "12 of 20");
      assertEquals(await points(), 10);
      await page.selectOption("#measure", "learning_rate");
      assertMatch(
        await page.evaluate(() => document.querySelector("#losses svg")!.getAttribute("aria-label")!),
        /^learning rate by step/,
      );
      await page.selectOption("#measure", "loss");

      // Adds a run from the disk.
      const lines =
        '{"iter":0,"train_loss":4,"val_loss":4}\n{"iter":0,"loss":4,"lr":0.001}\n{"iter":19,"loss":2,"lr":0.001}\n';
      const file = { name: "metrics.jsonl", mimeType: "text/plain", buffer: Buffer.from(lines) };
      await page.setInputFiles("#metrics-files", file);
      await page.waitForFunction(() => document.querySelectorAll("#run-list li").length === 2);
      assertEquals(await page.evaluate(() => document.querySelectorAll("#losses polyline").length), 4);
      await page.setInputFiles("#metrics-files", { ...file, name: "wrong.jsonl", buffer: Buffer.from("\nhello\n") });
      await textIs(page, "error", "wrong.jsonl, line 2: not JSON");
      await pictures(page, `runs-${colorScheme}`);

      await page.click("#checkpoints button:nth-child(2)");
      await page.waitForFunction(() => document.querySelectorAll("#checkpoints p").length === 1);
      for (const [words, verb] of [["Pause", "pause"], ["Resume", "resume"], ["Save now", "checkpoints"]]) {
        await page.click(`#run-actions button:text("${words}")`);
        await textIs(page, "run-said", words);
        assertEquals(jobs.done.at(-1), verb);
      }
      await page.click("#new-job-details summary");
      await page.click("#job-begin");
      await textIs(page, "error", "Choose a file to train on");
      for (const step of [13, 14]) { // the user's error is shown until an action succeeds, although the page polls jobs
        jobs.step(step);
        await textIs(page, "run-figures", `${step} of 20`);
        await textIs(page, "error", "Choose a file to train on");
      }
      await page.setInputFiles("#job-upload", { name: "text.txt", mimeType: "text/plain", buffer: Buffer.from("abc") });
      await page.fill("[name=n_epochs]", "2");
      await page.fill("[name=suffix]", "mine");
      await page.click("#job-begin");
      await textIs(page, "run-said", "The job has started");
      assertEquals(jobs.done.at(-1), "fine-tune text.txt abc");
      const method = { type: "supervised", supervised: { hyperparameters: { n_epochs: 2 } } };
      assertEquals(jobs.bodies, [{ model: "letters", training_file: "file-1", suffix: "mine", method }]);
      await page.click("#checkpoints button:nth-child(1)");
      await page.waitForFunction(() => !document.getElementById("write")!.hidden); // the model has no chat template
    },
  );

  browserTest({ name: `the served page, ${colorScheme}: server`, server: begin, colorScheme }, async (page) => {
    await ready(page);
    await page.fill("#manuscript", "a");
    await page.fill("[name=length]", "20");
    await page.click("#go");
    await textIs(page, "write-state", "20 tokens");
    await page.click("#tab-server");
    await page.waitForFunction(
      (tokens) => document.getElementById("load-tokens")!.textContent === String(tokens),
      server.engine.tokens,
    );
    await textIs(page, "served", "letters");
    await textIs(page, "requests", "/v1/completions");
    const snippet = await page.textContent("#snippet");
    assertMatch(snippet, /^curl -N http:\/\/127\.0\.0\.1:\d+\/v1\/completions/);
    await page.check("[value=python]");
    assertStringIncludes(await page.textContent("#snippet"), 'prompt="a",');
    await page.check("[value=typescript]");
    assertStringIncludes(await page.textContent("#snippet"), "client.completions.create(");
    server.engine.tokens += 500;
    await page.waitForFunction(() => Number(document.getElementById("load-rate")!.textContent) > 100);
    await page.waitForFunction(() =>
      document.querySelector("#rates polyline")!.getAttribute("points")!.split(" ").length > 1
    );
    await pictures(page, `server-${colorScheme}`);
    await page.press("#tab-server", "Home");
    assert(await page.isVisible("#write"));
  });
}
