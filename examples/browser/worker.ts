/**
 * The engine: a module worker that trains a model and writes with it, and tells the page what happens.
 *
 * It runs in a worker since the CPU device waits for its threads, which a page's own thread must not do. One run a worker:
 * the page ends it with `close`, and starts another for the next.
 */
import { CpuDevice, createDevice, type Device, generate, GPT, RandomGenerator, Trainer } from "@nanogpt/ts";
import { splitTokens } from "@nanogpt/ts/data";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import type { WebGPUDevice } from "../../src/device/webgpu.ts";
import { turn } from "../../src/loop/breather.ts";
import type { DeviceChoice, FromEngine, Path, StartRequest, ToEngine, WriteRequest } from "./messages.ts";

/** The global scope of a worker, of which the page's types know nothing. */
interface WorkerScope {
  onmessage: (event: MessageEvent<ToEngine>) => void;
  postMessage(message: FromEngine): void;
  close(): void;
}
const scope = globalThis as unknown as WorkerScope;

/** `auto` is a GPU where there is one that is no processor in disguise, else the CPU. */
async function openDevice(choice: DeviceChoice): Promise<{ device: Device; path: Path }> {
  let noGPU: string | undefined;
  if (choice !== "cpu") {
    try {
      const device = await createDevice(choice === "auto" ? "webgpu" : choice) as WebGPUDevice;
      return { device, path: { device: "webgpu", adapter: device.adapter } };
    } catch (error) {
      if (choice !== "auto") throw error;
      noGPU = wordsOf(error);
    }
  }
  const device = await CpuDevice.create();
  return { device, path: { device: "cpu", threads: device.threads, isolated: crossOriginIsolated, noGPU } };
}

class Run {
  /** Whoever wants the model waits for this: an update, or a text. */
  #free: Promise<unknown> = Promise.resolve();
  #training = new AbortController();
  #writing = new AbortController();

  private constructor(
    readonly device: Device,
    readonly tokenizer: CharacterTokenizer,
    readonly trainer: Trainer,
    readonly sampleLength: number,
  ) {}

  static async start({ device: choice, text, seed, model: config, training, sampleLength }: StartRequest) {
    const tokenizer = CharacterTokenizer.fromText(text), { vocabSize } = tokenizer;
    const data = splitTokens(text, tokenizer, config);
    const { device, path } = await openDevice(choice);
    try {
      const generator = new RandomGenerator(seed), model = new GPT({ ...config, vocabSize }, { device, generator });
      const trainer = new Trainer(model, data, { ...training, generator });
      const tokens = [data.train.length, data.val.length] as const;
      scope.postMessage({ kind: "started", path, parameters: model.numParameters(), vocabSize, tokens });
      return new Run(device, tokenizer, trainer, sampleLength);
    } catch (error) {
      device.close();
      throw error;
    }
  }

  /** Trains until it is told to stop, or is done. */
  async train(): Promise<void> {
    const { signal } = this.#training = new AbortController(), { trainer, sampleLength } = this;
    const events = trainer.run({ signal });
    try {
      for (;;) {
        const { value: event, done } = await this.#alone(() => events.next());
        if (done) break;
        scope.postMessage(event);
        if (event.kind === "evaluation" && sampleLength > 0) {
          const request = { prompt: "", length: sampleLength, temperature: 0.8, seed: 1337 };
          await this.#alone(() => this.#write(request, signal, event.iter));
        }
        await turn(); // messages from the page
      }
      scope.postMessage({ kind: signal.aborted ? "stopped" : "finished", iter: trainer.iter });
    } catch (error) {
      report("training", error);
    }
  }
  stop(): void {
    this.#training.abort();
  }

  async write(request: WriteRequest): Promise<void> {
    this.#writing.abort();
    const { signal } = this.#writing = new AbortController();
    try {
      await this.#alone(() => this.#write(request, signal));
    } catch (error) {
      report("writing", error);
    }
  }
  hush(): void {
    this.#writing.abort();
  }

  async close(): Promise<void> {
    this.stop();
    this.hush();
    await this.#alone(() => Promise.resolve());
    this.device.close();
  }

  /** Does `work` when all that was asked for before is done. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#free.then(work);
    this.#free = result.catch(() => {});
    return result;
  }

  async #write(
    { prompt, length, temperature, topK, seed }: Omit<WriteRequest, "kind">,
    signal: AbortSignal,
    iter?: number,
  ): Promise<void> {
    const { tokenizer } = this, { characters } = tokenizer;
    const start = prompt || (characters.includes("\n") ? "\n" : characters[0]);
    const options = { maxNewTokens: length, temperature, topK, seed, signal };
    for await (const token of generate(this.trainer.model, tokenizer.encode(start), options)) {
      scope.postMessage({ kind: "text", iter, text: tokenizer.decode([token]) });
      await turn();
    }
    scope.postMessage({ kind: "written", iter });
  }
}

const wordsOf = (error: unknown) => error instanceof Error ? error.message : String(error);
function report(during: "start" | "training" | "writing", error: unknown): void {
  console.error(error);
  scope.postMessage({ kind: "error", during, message: wordsOf(error) });
}

let run: Promise<Run> | undefined;

scope.onmessage = async ({ data: message }) => {
  try {
    if (message.kind === "start") run ??= Run.start(message);
    const started = await run;
    if (message.kind === "start" || message.kind === "resume") await started?.train();
    else if (message.kind === "stop") started?.stop();
    else if (message.kind === "write") await started?.write(message);
    else if (message.kind === "hush") started?.hush();
    else if (message.kind === "close") await started?.close();
  } catch (error) {
    if (message.kind === "start") report("start", error);
  }
  if (message.kind === "close") scope.close();
};
