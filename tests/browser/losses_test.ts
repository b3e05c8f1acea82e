/**
 * Runs the playground's engine in a browser, on each device, with the messages that the page sends, and compares the
 * first ten losses with PyTorch's.
 */
import { assertEquals } from "@std/assert";
import type { FromEngine, Path, StartRequest } from "../../examples/browser/messages.ts";
import { createDevice, generate, GPT, type GPTConfig, RandomGenerator, Trainer } from "../../mod.ts";
import { splitTokens } from "../../src/data/split.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { readFixture } from "../golden/fixtures.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertClose } from "../testing.ts";
import { browserTest } from "./browser.ts";

/** A case of golden/curve_test.ts. */
interface CurveCase {
  readonly config: GPTConfig;
  /** Values of flags, by their names in nanoGPT's train.py. */
  readonly flags: Readonly<Record<string, number>>;
}
const LOSSES = 10;
/** Length in characters of the sample that is generated before the first update; it must not change the losses. */
const SAMPLE = 8;
const fixture = readFixture<CurveCase>("curves"), [curve] = fixture.cases;

/**
 * Makes a request with the fixture's tokens as a text. The order of its characters' code points is the order of the
 * tokens.
 */
function requestOf(
  { config: { vocabSize: _, ...model }, flags: { seed, ...flags } }: CurveCase,
  device: StartRequest["device"],
): StartRequest & Required<Pick<StartRequest, "model">> {
  const ids = [...fixture.get("train").values, ...fixture.get("val").values];
  const text = String.fromCodePoint(...ids.map((id) => 97 + id));
  const camel = (flag: string) => flag.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  const training = Object.fromEntries(Object.entries(flags).map(([flag, value]) => [camel(flag), value]));
  return { kind: "start", device, text, seed, model, training, sampleLength: SAMPLE };
}

/** Called inside the page: starts the worker, and collects its messages until there are `losses` losses. */
function runInPage({ request, losses }: { request: StartRequest; losses: number }): Promise<FromEngine[]> {
  const worker = new Worker("worker.js", { type: "module" }), said: FromEngine[] = [];
  return new Promise((resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.onmessage = ({ data }: MessageEvent<FromEngine>) => {
      said.push(data);
      if (data.kind === "error") reject(new Error(data.message));
      if (said.filter(({ kind }) => kind === "step").length < losses) return;
      worker.postMessage({ kind: "close" });
      resolve(said);
    };
    worker.postMessage(request);
  });
}

/** Does the same run on the CPU device of this process. @returns its losses, and the sample before the first update */
async function runHere(): Promise<{ losses: number[]; sample: string }> {
  const { model: config, training, seed, text } = requestOf(curve, "cpu"), losses: number[] = [];
  const device = await createDevice("cpu", { threads: 1 }), generator = new RandomGenerator(seed);
  const tokenizer = CharacterTokenizer.fromText(text), { vocabSize } = tokenizer;
  const model = new GPT({ ...config, vocabSize }, { device, generator });
  const trainer = new Trainer(model, splitTokens(text, tokenizer, config), { ...training, generator });
  const options = { maxNewTokens: SAMPLE, temperature: 0.8, seed: 1337 };
  const sample = tokenizer.decode(await Array.fromAsync(generate(model, [0], options)));
  for await (const event of trainer.run()) {
    if (event.kind === "step" && losses.push(event.loss) === LOSSES) break;
  }
  device.close();
  return { losses, sample };
}

interface PathCase {
  readonly name: string;
  readonly flags?: string[];
  readonly device: StartRequest["device"];
  /** @param processors number of processors that the browser reports */
  path(processors: number): Path;
}
const software =
  "webgpu: the only adapter computes on the processor (google swiftshader); to use it, add :software to the name of the device";
const paths: PathCase[] = [
  {
    name: "the CPU, with threads",
    device: "cpu",
    path: (threads) => ({ device: "cpu", threads, isolated: true, noGPU: undefined }),
  },
  {
    name: "the CPU, without cross-origin isolation",
    flags: ["--no-isolation"],
    device: "auto",
    path: () => ({ device: "cpu", threads: 1, isolated: false, noGPU: software }),
  },
  {
    name: "WebGPU",
    device: "webgpu:software",
    path: () => ({ device: "webgpu", adapter: "google swiftshader" }),
  },
];

for (const { name, flags, device, path } of paths) {
  browserTest({ name: `ten losses in a browser, by ${name}`, flags }, async (page) => {
    const said = await page.evaluate(runInPage, { request: requestOf(curve, device), losses: LOSSES });
    const processors = await page.evaluate(() => navigator.hardwareConcurrency);
    const started = said.find((message) => message.kind === "started");
    assertEquals(started?.path, path(processors));
    const losses = said.filter((message) => message.kind === "step").map(({ loss }) => loss);
    const expected = fixture.get("0.losses").values.subarray(0, LOSSES);
    console.log(`${name}: ${losses.map((loss) => loss.toFixed(6)).join(" ")}`);
    assertClose(losses, expected, tolerances.curve, name);
    const sample = said.filter((message) => message.kind === "text").map(({ text }) => text).join("");
    const here = await runHere();
    assertEquals(sample, here.sample);
    if (started?.path.device === "cpu") assertEquals(losses, here.losses); // bit for bit
  });
}
