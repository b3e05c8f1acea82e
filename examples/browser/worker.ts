/**
 * The engine: a module worker that trains or fine-tunes a model, generates text with it, and reports to the page.
 *
 * It runs in a worker for two reasons: the CPU device waits for its threads, which a page's main thread must not do,
 * and only workers can write files synchronously. A worker has one run. The page ends the worker with `close`, and
 * starts another one for the next run.
 */
import { CpuDevice, createDevice, type Device, generate } from "@nanogpt/ts";
import { beginning } from "../../src/tokenizer/tokenizer.ts";
import type { WebGPUDevice } from "../../src/device/webgpu.ts";
import { turn } from "../../src/loop/breather.ts";
import { exportArchive } from "./exports.ts";
import type {
  DeviceChoice,
  ExportFormat,
  FromEngine,
  LoadRequest,
  Path,
  PrepareRequest,
  ToEngine,
  WriteRequest,
} from "./messages.ts";
import { type Model, newRun, openModel, type Run, savedRun } from "./run.ts";
import { Storage } from "./storage.ts";

/** The global scope of a worker, which TypeScript's types for pages do not declare. */
interface WorkerScope {
  onmessage: (event: MessageEvent<ToEngine>) => void;
  postMessage(message: FromEngine): void;
  close(): void;
}
const scope = globalThis as unknown as WorkerScope;

/** Opens a device. `auto` is a GPU if there is a hardware GPU, else the CPU. */
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

/** Minimum time between two saves: SAVE_EVERY milliseconds, and BUSY times the duration of a save. */
const SAVE_EVERY = 5000, BUSY = 20;

class Engine {
  /** Resolves when the model is not in use any more: after the current update or text. */
  #free: Promise<unknown> = Promise.resolve();
  #training = new AbortController();
  #writing = new AbortController();
  #device: Promise<{ device: Device; path: Path }> | undefined;
  #storage: Promise<Storage> | undefined;
  #loaded: Model | undefined;
  #run: Run | undefined;

  get #opened() {
    return this.#storage ??= Storage.open();
  }
  #on(choice: DeviceChoice) {
    return this.#device ??= openDevice(choice);
  }

  async prepare(message: PrepareRequest): Promise<void> {
    const storage = await this.#opened;
    if (message.kind === "load") return await this.#load(message, storage);
    const device = async (choice: DeviceChoice) => (await this.#on(choice)).device;
    const run = this.#run = message.kind === "start"
      ? await newRun(message, { device: await device(message.device), storage, loaded: this.#loaded })
      : await savedRun(storage, device);
    this.#tellStart(run, (await this.#device!).path, storage);
    if (message.kind === "start") return;
    for (const event of run.history) scope.postMessage(event);
    scope.postMessage({ kind: "stopped", iter: run.trainer.iter });
  }

  async #load({ device: choice, files }: LoadRequest, storage: Storage): Promise<void> {
    const folder = await storage.mount(files), { device, path } = await this.#on(choice);
    const { model, tokenizer } = this.#loaded = await openModel(folder, device);
    const { blockSize, vocabSize } = model.config, parameters = model.numParameters(), name = folder.split("/").at(-1)!;
    scope.postMessage({
      kind: "loaded",
      path,
      name,
      parameters,
      vocabSize: Math.min(vocabSize, tokenizer.vocabSize),
      blockSize,
    });
  }

  #tellStart({ model, tokenizer: { vocabSize }, tokens, trained }: Run, path: Path, { unsaved }: Storage): void {
    const parameters = model.numParameters() - (trained ?? 0);
    scope.postMessage({ kind: "started", path, parameters, trained, vocabSize, tokens, unsaved });
  }

  /** Trains until the end, or until `stop`. */
  async train(): Promise<void> {
    const { trainer, sampleLength, prompt } = this.#run!, { signal } = this.#training = new AbortController();
    const events = trainer.run({ signal });
    let saved = performance.now(), pause = SAVE_EVERY;
    try {
      for (;;) {
        const begun = performance.now(), { value: event, done } = await this.#alone(() => events.next());
        if (done) break;
        scope.postMessage(event);
        const now = performance.now();
        if (event.kind === "checkpoint") {
          saved = now;
          pause = Math.max(SAVE_EVERY, BUSY * (now - begun));
        } else if (now - saved > pause) {
          trainer.saveNext();
          saved = now;
        }
        if (event.kind === "evaluation" && sampleLength > 0) {
          if (prompt) scope.postMessage({ kind: "text", iter: event.iter, text: prompt });
          const request = { prompt, length: sampleLength, temperature: 0.8, seed: 1337 };
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

  async export(format: ExportFormat): Promise<void> {
    try {
      const exported = await this.#alone(() => exportArchive(format, this.#run ?? this.#loaded!));
      scope.postMessage({ kind: "exported", ...exported });
    } catch (error) {
      report("export", error);
    }
  }

  async close(): Promise<void> {
    this.stop();
    this.hush();
    await this.#alone(() => Promise.resolve());
    this.#run?.trainer.dispose();
    (await this.#device?.catch(() => undefined))?.device.close();
    (await this.#storage)?.close();
  }

  /** Runs `work` after all earlier work is done. */
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
    const { model, tokenizer } = (this.#run ?? this.#loaded)!, decoder = tokenizer.decoder();
    const start = prompt ? tokenizer.encode(prompt, { allowedSpecial: "all" }) : beginning(tokenizer);
    const tell = (text: string) => text && scope.postMessage({ kind: "text", iter, text });
    for await (const token of generate(model, start, { maxNewTokens: length, temperature, topK, seed, signal })) {
      tell(token < tokenizer.vocabSize ? decoder.push(token) : "\ufffd");
      await turn();
    }
    tell(decoder.end());
    scope.postMessage({ kind: "written", iter });
  }
}

const wordsOf = (error: unknown) => error instanceof Error ? error.message : String(error);
function report(during: Extract<FromEngine, { kind: "error" }>["during"], error: unknown): void {
  console.error(error);
  scope.postMessage({ kind: "error", during, message: wordsOf(error) });
}

const engine = new Engine();
/** Resolves when all `load`, `start` and `restore` messages have been handled. All other messages wait for it. */
let ready: Promise<void> = Promise.resolve();

scope.onmessage = async ({ data: message }) => {
  const { kind } = message;
  if (kind === "load" || kind === "start" || kind === "restore") {
    ready = ready.then(() => engine.prepare(message));
    ready.catch((error) => report("start", error));
  }
  const isReady = await ready.then(() => true, () => false);
  if (kind === "close") {
    await engine.close();
    scope.close();
  } else if (!isReady) return;
  else if (kind === "start" || kind === "resume") await engine.train();
  else if (kind === "stop") engine.stop();
  else if (kind === "write") await engine.write(message);
  else if (kind === "hush") engine.hush();
  else if (kind === "export") await engine.export(message.format);
};
