/**
 * The playground page: clicks every button and checks what is visible. NANOGPT_SCREENSHOTS names a folder for
 * screenshots.
 */
import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { browserTest, type Page } from "./browser.ts";

const screenshots = Deno.env.get("NANOGPT_SCREENSHOTS") ?? await Deno.makeTempDir();
const PHONE = { width: 390, height: 844 };

const stateIs = (page: Page, state: string) =>
  page.waitForFunction((state) => document.body.dataset.state === state, state);
const textIs = (page: Page, id: string, text: string) =>
  page.waitForFunction(([id, text]) => document.getElementById(id)!.textContent!.includes(text), [id, text]);
/** Reads from the page how many updates were made, after training has stopped. */
const updates = async (page: Page) => Number(/\d+/.exec(await page.textContent("#status")));

/** Takes a screenshot, from the top of the page. */
async function picture(page: Page, name: string, fullPage = false): Promise<void> {
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage });
}

async function assertNoSidewaysScrolling(page: Page): Promise<void> {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assertEquals([content, window], [PHONE.width, PHONE.width]);
}

browserTest({ name: "the page: start, stop, resume, reset" }, async (page) => {
  assertEquals(await page.textContent("#status"), "Ready");
  assert((await page.textContent("#excerpt")).length > 100, "the text to train on is shown");
  assert(await page.isDisabled("#write"), "no text can be generated before there is a model");
  await page.fill("[name=batchSize]", "128"); // updates take much longer than messages
  await page.fill("[name=evalInterval]", "10");
  await page.click("#main");
  await stateIs(page, "training");
  const threads = await page.evaluate(() => navigator.hardwareConcurrency);
  assertEquals(await page.textContent("#path"), threads === 1 ? "CPU with one thread" : `CPU with ${threads} threads`);
  assert(await page.isDisabled("#text"), "settings are fixed until reset");
  const focused = () => page.evaluate(() => document.activeElement!.id);
  assertEquals(await focused(), "main", "Start was disabled for a moment, and has the focus again");

  // Waits for the untrained model's sample, the plot and the figures.
  await page.waitForFunction(() =>
    document.querySelectorAll("#plot .train")[0].getAttribute("points")!.split(" ").length > 12
  );
  assertEquals((await page.textContent("#sample-0")).length, 240);
  assert((await page.textContent("#plot")).includes("entropy 0.216"));
  assert((await page.textContent("#log")).includes("step 0: train loss 3."));

  // When the button is clicked, the worker is in the middle of an update, and may have sent a loss that the page has
  // not shown yet.
  const shown = await page.evaluate(() => {
    document.getElementById("main")!.click();
    return Number(document.getElementById("iteration")!.textContent!.replace(",", ""));
  });
  await stateIs(page, "stopped");
  const stopped = await updates(page), ran = stopped - 1 - shown;
  assert(ran >= 0 && ran <= 2, `${ran} updates after stop`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assertEquals(await page.textContent("#iteration"), String(stopped - 1));
  await picture(page, "stopped");

  await page.click("#main");
  await textIs(page, "samples", "After 40 updates");
  await stateIs(page, "training");
  await page.press("#main", "Enter");
  await stateIs(page, "stopped");
  assertEquals(await focused(), "main");
  const log = await page.textContent("#log");
  assert(log.includes(`stopped after ${stopped} updates\n`), "the log continues");
  const iterations = log.matchAll(/^iter (\d+): loss ([\d.]+)/gm).map(([, iter, loss]) => [Number(iter), Number(loss)])
    .toArray();
  assertEquals(iterations.map(([iter]) => iter), iterations.map((_, i) => 10 * i), "every iteration once");
  assert(iterations.at(-1)![1] < 0.8 * iterations[0][1], "the loss has fallen");

  await page.click("#reset");
  await stateIs(page, "idle");
  assertEquals(await page.textContent("#samples"), "");
  assert(!await page.isDisabled("#text"));
  // Chromium waits two seconds for blocked threads before it ends them.
  for (let waited = 0; page.workers().length > 0; waited += 100) {
    assert(waited < 60_000, "the engine and its threads have ended");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

browserTest({ name: "the page: a prompt, while training and after", colorScheme: "dark" }, async (page) => {
  const write = async (prompt: string, length: string) => {
    await page.fill("#prompt", prompt);
    await page.fill("[name=length]", length);
    await page.click("#write");
  };
  const written = () => textIs(page, "write", "Write");
  const text = () => page.textContent("#output");
  await page.click("#main");
  await stateIs(page, "training");
  await page.fill("[name=temperature]", "0");
  await write("Where does the ", "10000");
  assertEquals(await page.textContent("#write"), "Stop writing");
  const lengths = new Set<number>();
  while (lengths.size < 4) lengths.add((await text()).length); // the text arrives in pieces
  await page.click("#write");
  await written();
  assert((await text()).length < 10_000, "generation has stopped in the middle");
  await write("Where do the ", "40");
  await written();
  await stateIs(page, "training");

  await textIs(page, "samples", "After 200 updates");
  await page.click("#main");
  await stateIs(page, "stopped");
  await write('"Good ', "120");
  await written();
  const first = await text();
  assertEquals([first.length, first.slice(0, 6)], [126, '"Good ']);
  await write('"Good ', "120");
  await written();
  assertEquals(await text(), first); // temperature 0 is deterministic
  await page.fill("[name=topK]", "5");
  await page.fill("[name=temperature]", "1.2");
  await write('"Good ', "120");
  await written();
  assert(await text() !== first, "temperature 1.2 is random");
  await picture(page, "dark", true);

  await page.hover("#plot"); // in the middle of the plot, the last loss is the nearest point
  await textIs(page, "plot", `iteration ${await updates(page) - 1}: ${await page.textContent("#loss")}`);

  await page.fill("#prompt", "5 % off");
  await page.click("#write");
  await textIs(page, "write-error", 'Not in the vocabulary of 48 characters: "5", "%"');
  assertEquals(await page.textContent("#write"), "Write");
});

browserTest({ name: "the page: on a phone, with a user's text, to the end" }, async (page) => {
  await page.setViewportSize(PHONE);
  await assertNoSidewaysScrolling(page);
  await picture(page, "phone_settings", true);
  await page.check("[value=own]");
  await page.fill("#text", "Too short.");
  await page.click("#main");
  await stateIs(page, "failed");
  await textIs(page, "error", "The text is too short for block_size=32");
  const buffer = Buffer.from("Fifteen foxes fix fifty fences. ".repeat(100));
  await page.setInputFiles("#file", { name: "foxes.txt", mimeType: "text/plain", buffer });
  await textIs(page, "excerpt", "Fifteen foxes");
  await page.fill("[name=evalInterval]", "40");
  await page.fill("[name=maxIters]", "120");
  await page.press("[name=maxIters]", "Enter");
  await stateIs(page, "finished");
  assertEquals(await page.textContent("#status"), "Done: 121 updates");
  assert(!await page.isVisible("#error"));
  assert(!await page.isVisible("#settings"), "the settings are hidden during a run");
  assert(!(await page.textContent("#plot")).includes("entropy"), "the entropy of this text is unknown");
  assert((await page.textContent("#sample-120")).includes("foxes fix fifty"), "the model has learnt the text");
  await assertNoSidewaysScrolling(page);
  await picture(page, "phone", true);
});

browserTest({ name: "the page: devices and error messages", flags: ["--no-isolation"] }, async (page) => {
  // Simulates a browser that does not support the engine's syntax.
  await page.route("**/worker.js", (route) => route.fulfill({ body: "using 1;", contentType: "text/javascript" }));
  await page.click("#main");
  await stateIs(page, "failed");
  await textIs(page, "error", "The engine did not load. Either the server has stopped, or this browser is too old");
  await page.unroute("**/worker.js");
  await page.click("#reset");
  await page.selectOption("#device", "webgpu");
  await page.click("#main");
  await stateIs(page, "failed");
  await textIs(page, "error", "the only adapter computes on the processor (google swiftshader)");
  for (
    const [device, words] of [
      ["webgpu:software", "WebGPU: google swiftshader"],
      ["cpu", "CPU with one thread, because this page is not cross-origin isolated"],
    ]
  ) {
    await page.click("#reset");
    await page.selectOption("#device", device);
    await page.click("#main");
    await stateIs(page, "training");
    assertEquals(await page.textContent("#path"), words);
  }
  await page.click("#reset");
  await page.fill("[name=nHead]", "5");
  await page.click("#main");
  assertEquals(await page.textContent("#status"), "Ready"); // the browser does not submit an invalid form
  assertEquals(
    await page.evaluate(() => document.querySelector<HTMLInputElement>("[name=nEmbd]")!.validationMessage),
    "The width must be a multiple of the number of heads.",
  );
});
