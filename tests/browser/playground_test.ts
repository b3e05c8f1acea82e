/**
 * The playground with models from the disk, its exports, and reloads. NANOGPT_SCREENSHOTS names a folder for
 * screenshots.
 */
import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { createDevice, type Device, GPT, loadPretrained, noGrad, RandomGenerator } from "@nanogpt/ts";
import { saveHuggingFace } from "@nanogpt/ts/checkpoint";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import { ZipFile } from "../../src/files/zip.ts";
import { browserTest, type Page, PLAIN_HOST } from "./browser.ts";

const screenshots = Deno.env.get("NANOGPT_SCREENSHOTS") ?? await Deno.makeTempDir();
const folder = await Deno.makeTempDir();
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Waits for a condition. If that takes too long, the error has the page's own messages. */
async function waitFor(page: Page, condition: ([id, text]: string[]) => boolean, what: string[]): Promise<void> {
  try {
    await page.waitForFunction(condition, what);
  } catch (error) {
    const [status, why] = [await page.textContent("#status"), await page.textContent("#error")];
    throw new Error(`${what.join(": ")} did not appear: ${status} ${why}`, { cause: error });
  }
}
const stateIs = (page: Page, state: string) =>
  waitFor(page, ([state]) => document.body.dataset.state === state, [state]);
const textIs = (page: Page, id: string, text: string) =>
  waitFor(page, ([id, text]) => document.getElementById(id)!.textContent!.includes(text), [id, text]);
const isShown = (page: Page, id: string) => page.waitForFunction((id) => !document.getElementById(id)!.hidden, id);
const address = (page: Page) => page.evaluate(() => location.href);

async function picture(page: Page, name: string): Promise<void> {
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });
}

/** Fills in the form for a small run of a new model. */
async function small(page: Page, maxIters: number): Promise<void> {
  await page.fill("[name=maxIters]", String(maxIters));
  await page.fill("[name=evalInterval]", "20");
}

/** Exports an archive and unpacks it. @returns the path of the folder */
async function takeAway(page: Page, format: string, to: string): Promise<string> {
  const bytes = await page.evaluate((format) => {
    const { promise, resolve } = Promise.withResolvers<Blob>(), make = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
      resolve(blob as Blob);
      URL.createObjectURL = make;
      return make(blob);
    };
    document.getElementById(`export-${format}`)!.click();
    return promise.then(async (blob) => [...new Uint8Array(await blob.arrayBuffer())]);
  }, format);
  const path = `${folder}/${to}`;
  await Deno.writeFile(`${path}.zip`, Uint8Array.from(bytes));
  using zip = await ZipFile.open(`${path}.zip`);
  for (const name of zip.entries.keys()) {
    const file = `${path}/${name.split("/").slice(1).join("/")}`;
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    await Deno.writeFile(file, await zip.read(name));
  }
  return path;
}

/** The weights, the optimizer's state and the generator's state in a run's last checkpoint. */
async function lastOf(run: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${run}/run.json`));
  const names = ["optimizer.safetensors", "state.json"];
  for (const name of ["model.safetensors", "adapter_model.safetensors"]) {
    if (await Deno.stat(`${run}/${last}/${name}`).catch(() => undefined)) names.push(name);
  }
  return await Promise.all(names.sort().map((name) => Deno.readFile(`${run}/${last}/${name}`)));
}

/** Returns the lines of the page's log that show losses. */
const lossesOf = async (page: Page) =>
  [...(await page.textContent("#log")).matchAll(/^iter \d+: loss [\d.]+/gm)].map(([line]) => line);

browserTest({ name: "the playground: a run survives a reload and continues bit for bit" }, async (page) => {
  await small(page, 300);
  await page.click("#main");
  await stateIs(page, "training");
  assertEquals(await page.textContent("#keeping"), "Saved in this browser: the run survives a reload");
  await textIs(page, "samples", "After 40 updates");
  await page.goto(await address(page)); // reloads the page in the middle of an update or of a save
  await isShown(page, "saved");
  const [, count] = /trains a new model: (\d+) updates are saved/.exec(await page.textContent("#saved-words"))!;
  assert(Number(count) >= 20 && Number(count) < 300, count);
  await picture(page, "playground_saved");
  await page.click("#go-on");
  await stateIs(page, "stopped");
  assertEquals(await page.textContent("#status"), `Stopped after ${Number(count)} updates`);
  assertEquals(await page.textContent("#iteration"), String(Number(count) - 1)); // earlier losses are shown again
  assert((await page.textContent("#plot")).includes("entropy 0.216"));
  await page.click("#main");
  await stateIs(page, "finished");
  const broken = await lossesOf(page), resumed = await takeAway(page, "run", "resumed");
  await picture(page, "playground_resumed");

  const other = await page.context().newPage(); // the same run without a break
  await other.goto(await address(page));
  await page.click("#reset");
  await small(other, 300);
  await other.click("#main");
  await stateIs(other, "finished");
  assertEquals(await lossesOf(other), broken);
  assertEquals(await lastOf(await takeAway(other, "run", "whole")), await lastOf(resumed));

  // The exported run can be loaded outside the page.
  using device = await createDevice("cpu", { threads: 1 });
  const { model, tokenizer } = await loadPretrained(resumed, { device, checkpoint: "last" });
  assertEquals([model.config.nEmbd, tokenizer.vocabSize], [48, 48]);
  const exported = await takeAway(other, "hugging_face", "new_model");
  assertEquals((await loadPretrained(exported, { device })).model.config.nLayer, 2);
});

browserTest(
  { name: "the playground: a second tab, a browser without file system, and deleting a run" },
  async (page) => {
    await small(page, 10_000);
    await page.click("#main");
    await textIs(page, "samples", "After 40 updates"); // the checkpoint after 20 updates is saved
    const other = await page.context().newPage();
    await other.goto(await address(page));
    await isShown(other, "saved");
    await other.click("#forget");
    await textIs(other, "saved-words", "The run cannot be deleted now: another tab has it open.");
    await other.click("#go-on");
    await stateIs(other, "failed");
    await textIs(other, "error", "The saved run cannot be opened: another tab of this page uses the saved run");
    await other.click("#reset");
    await small(other, 20);
    await other.click("#main");
    await stateIs(other, "finished");
    assertEquals(
      await other.textContent("#keeping"),
      "Not saved, and lost when this page is closed: another tab of this page uses the saved run",
    );
    await takeAway(other, "run", "unsaved");
    await other.close();
    await page.click("#main");
    await stateIs(page, "stopped");
    await page.click("#reset");
    await isShown(page, "saved");
    await page.waitForFunction(() => { // waits until the engine has ended
      document.getElementById("forget")!.click();
      return document.getElementById("saved")!.hidden;
    });
    await page.goto(await address(page));
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert(!await page.isVisible("#saved"));

    await page.goto((await address(page)).replace("localhost", PLAIN_HOST));
    await small(page, 20);
    await page.click("#main");
    await stateIs(page, "finished");
    const why = "this browser provides no folders for pages that are not from https or localhost";
    assertEquals(await page.textContent("#keeping"), `Not saved, and lost when this page is closed: ${why}`);
    assertEquals((await lastOf(await takeAway(page, "run", "plain"))).length, 3);
  },
);

/** Saves a small character-level model as a Hugging Face folder. */
async function tiny(device: Device): Promise<string> {
  const tokenizer = CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz .\n"), { vocabSize } = tokenizer;
  const config = { vocabSize, blockSize: 32, nLayer: 2, nHead: 2, nEmbd: 32 };
  const model = new GPT(config, { device, generator: new RandomGenerator(7) }), path = `${folder}/letters`;
  await saveHuggingFace(model, path, { tokenizer });
  model.dispose();
  return path;
}

/** The logits of a model for a fixed sequence of tokens. */
async function logitsOf(model: GPT): Promise<number[]> {
  const read = () => {
    using _ = model.device.scope();
    const ids = model.device.tensor(Int32Array.from({ length: 16 }, (_, i) => i), [1, 16], { dtype: "i32" });
    return noGrad(() => model.forward(ids, ids).logits).data();
  };
  return [...await read()];
}

browserTest(
  { name: "the playground: a model from the disk is fine-tuned with LoRA, exported, and survives a reload" },
  async (page) => {
    using device = await createDevice("cpu", { threads: 1 });
    const path = await tiny(device), base = (await loadPretrained(path, { device })).model;
    const rows = Array.from(
      { length: 40 },
      (_, i) => ({ prompt: "the cat ", completion: i % 2 ? "sat.\n" : "ran.\n" }),
    );
    const buffer = Buffer.from(rows.map((row) => JSON.stringify(row)).join("\n"));
    /** Starts fine-tuning the loaded model on the rows. */
    const tune = async (page: Page) => {
      await page.check("[name=source][value=own]");
      await page.setInputFiles("#file", { name: "cats.jsonl", mimeType: "application/jsonl", buffer });
      await textIs(page, "excerpt", "the cat");
      await page.fill("[name=maxIters]", "60");
      await page.fill("[name=learningRate]", "0.05");
      await page.fill("[name=context]", "32");
      assertEquals(await page.textContent("#main"), "Fine-tune");
      await page.click("#main");
    };
    await page.check("[name=origin][value=disk]");
    assertEquals(await page.textContent("#main"), "Load");
    await page.setInputFiles("#folder", path);
    await stateIs(page, "loaded");
    assertEquals(await page.textContent("#status"), "Loaded: letters");
    await textIs(page, "log", "29 tokens, context 32");
    await picture(page, "playground_loaded");
    await page.fill("[name=length]", "10");
    await page.fill("#prompt", "abc");
    await page.click("#write"); // generates a text before fine-tuning
    await textIs(page, "write", "Write");
    assertEquals((await page.textContent("#output")).length, 13);

    await tune(page);
    await textIs(page, "samples", "After 40 updates"); // the checkpoint after 20 updates is saved
    assert((await page.textContent("#sample-20")).startsWith("the cat "), "a sample continues a row's prompt");
    await page.goto(await address(page));
    await isShown(page, "saved");
    assert((await page.textContent("#saved-words")).includes("tunes letters:"));
    await page.click("#go-on");
    await stateIs(page, "stopped");
    await page.click("#main");
    await stateIs(page, "finished");
    assertEquals(await page.textContent("#status"), "Done: 60 updates");
    assert(await page.isVisible("#disk"), "the form shows the run's settings");
    assert(Number(await page.textContent("#val-loss")) < 3.1, "the loss was ln 29 = 3.37 at first");
    await picture(page, "playground_tuned");
    assert(await page.isDisabled("#export-run"), "a run with an adapter is useless without its base");

    const merged = (await loadPretrained(await takeAway(page, "hugging_face", "merged"), { device })).model;
    const adapter = await takeAway(page, "adapter", "adapter");
    const config = JSON.parse(await Deno.readTextFile(`${adapter}/adapter_config.json`));
    assertEquals([config.peft_type, config.r, config.base_model_name_or_path], ["LORA", 8, "letters"]);
    const adapted = (await loadPretrained(path, { device, adapter })).model;
    const [before, one, two] = [await logitsOf(base), await logitsOf(merged), await logitsOf(adapted)];
    assert(two.some((logit, i) => Math.abs(logit - before[i]) > 0.1), "the adapter changes the logits");
    for (const [i, logit] of one.entries()) assert(Math.abs(logit - two[i]) < 1e-4, `${logit} ${two[i]}`);

    const other = await page.context().newPage(); // the same run without a break
    await other.goto(await address(page));
    await page.click("#reset");
    await other.check("[name=origin][value=disk]");
    await other.setInputFiles("#folder", path);
    await stateIs(other, "loaded");
    await tune(other);
    await stateIs(other, "finished");
    const whole = await takeAway(other, "adapter", "whole_adapter");
    const read = (path: string) => Deno.readFile(`${path}/adapter_model.safetensors`);
    assertEquals(await read(whole), await read(adapter));
  },
);

browserTest({ name: "the playground: invalid folders and files" }, async (page) => {
  using device = await createDevice("cpu", { threads: 1 });
  const path = await tiny(device).catch(() => `${folder}/letters`), empty = `${folder}/empty`;
  await Deno.mkdir(empty);
  await Deno.writeTextFile(`${empty}/notes.txt`, "nothing");
  const failsWith = async (words: string) => {
    await stateIs(page, "failed");
    await textIs(page, "error", words);
    await page.click("#reset");
    await stateIs(page, "idle");
  };
  await page.check("[name=origin][value=disk]");
  await page.click("#main");
  await failsWith("No folder is chosen yet");
  await page.setInputFiles("#folder", empty);
  await failsWith("The folder has no model; expected a folder with config.json");
  const broken = `${folder}/broken`;
  await Deno.mkdir(broken);
  for await (const { name } of Deno.readDir(path)) await Deno.copyFile(`${path}/${name}`, `${broken}/${name}`);
  await Deno.truncate(`${broken}/model.safetensors`, 5000);
  await page.setInputFiles("#folder", broken);
  await failsWith("disk/broken/model.safetensors");

  await page.setInputFiles("#folder", path);
  await stateIs(page, "loaded");
  await page.setViewportSize({ width: 390, height: 844 });
  assert(await page.isVisible("#settings"), "the training data can be chosen on a phone, too");
  await picture(page, "playground_phone");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.check("[name=source][value=own]");
  const buffer = Buffer.from('{"text": "abc"}\n{"txt": "abc"}\n');
  await page.setInputFiles("#file", { name: "rows.jsonl", mimeType: "application/jsonl", buffer });
  await textIs(page, "excerpt", "txt");
  await page.click("#main");
  await failsWith("rows.jsonl, line 2");
});
