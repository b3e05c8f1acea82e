/** The engine. Its models and their scheduler run in a worker, so that the main thread stays free for connections. */
import { ConfigError } from "../errors.ts";
import {
  Draining,
  type Engine,
  type GenerateRequest,
  type Generation,
  QueueFull,
  type ServedModel,
} from "./engine_api.ts";
import {
  type AdapterSpec,
  fromWire,
  type FromWorker,
  type LoadedInfo,
  type ModelSpec,
  MOST_SLOTS,
  Shared,
  type ToWorker,
  type Update,
} from "./messages.ts";
import { type Entry, Models, type ModelsOptions } from "./models.ts";
import { type Pending, PendingTexts } from "./pending.ts";
import { type EngineMetrics, metricsText, noMetrics } from "./metrics.ts";

/** Milliseconds after which the engine counts as not ready, if the current step has not ended. */
const STUCK = 30_000;
/**
 * Maximum number of places in the queue that an embedding request takes. Its inputs are read one after the other and
 * need no slots.
 */
const MOST_INPUTS = 16;
/** Number of texts, roughly, over which the duration of a text is averaged. */
const LOOKS_BACK = 32;

/** Options of an engine. */
export interface EngineOptions extends ModelsOptions {
  /** The models, in the order of `GET /v1/models`. An adapter has to come after its base. */
  readonly models: readonly (ModelSpec | AdapterSpec)[];
  /** Maximum number of texts that wait for a slot of a model; further requests are refused. Default 512. */
  readonly queue?: number;
}

/**
 * Starts the worker and loads models.
 *
 * @throws {ConfigError} if a model does not exist, or two have the same name
 * @throws {CheckpointError} if a model is damaged
 * @throws {DeviceError} if a model does not fit
 * @example
 * ```ts ignore
 * await using engine = await openEngine({ models: [{ id: "shakespeare", path: "out", weights: "f32", device: "auto", slots: 0, cache: "f32" }] });
 * const request = { model: "shakespeare", prompt: [0], count: 1, maxNewTokens: 20 };
 * for await (const pieces of engine.generate(request, new AbortController().signal).pieces) console.log(pieces[0].text);
 * ```
 */
export async function openEngine({ models, ...options }: EngineOptions): Promise<WorkerEngine> {
  const engine = new WorkerEngine(options);
  try {
    for (const spec of models) await engine.load(spec);
    return engine;
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
}

/** The engine that {@linkcode openEngine} returns. */
export class WorkerEngine implements Engine, AsyncDisposable {
  readonly #options: Omit<EngineOptions, "models">;
  readonly #worker: Worker;
  readonly #shared = new Shared();
  readonly #models: Models;
  readonly #pending = new Map<number, Pending>();
  #requests = 0;
  #metrics = noMetrics();
  #dead: Error | undefined;
  readonly #failed = Promise.withResolvers<never>();
  /** Rejects when the worker has failed. The engine cannot be used after that. */
  readonly failed: Promise<never> = this.#failed.promise;
  #draining = false;
  /** Called when no request is pending. */
  #drained = () => {};
  /** Average seconds that a text takes. */
  #textSeconds = 0.5;

  constructor(options: Omit<EngineOptions, "models">) {
    this.#options = options;
    this.#models = new Models({
      load: (spec) => this.#loadInWorker(spec),
      unload: (id) => this.#post({ kind: "unload", of: 0, id }),
      inUse: (which) => this.#pending.values().some(({ entry }) => entry !== undefined && which(entry)),
    }, options);
    this.#worker = new Worker(new URL("./engine_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#hear(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const error = new Error(`The engine has failed: ${event.message}`);
      this.#end(error);
      this.#failed.reject(error);
    };
    this.failed.catch(() => {}); // every pending request reports the error, too
    this.#worker.postMessage(this.#shared.buffer);
  }

  /**
   * Starts to serve a model, or an adapter for a served model.
   *
   * @throws {ConfigError} if the model does not exist, or its name is taken
   * @throws {CheckpointError} if the model is damaged, or the adapter was trained on another base
   * @throws {DeviceError} if the model does not fit
   */
  load(spec: ModelSpec | AdapterSpec): Promise<ServedModel> {
    return this.#models.add(spec);
  }
  /**
   * Stops serving a model.
   *
   * @throws {ConfigError} if there is no such model, an adapter needs it, or it is generating a text
   */
  remove(id: string): void {
    this.#models.remove(id);
  }
  models(key?: string): readonly ServedModel[] {
    return this.#models.all.filter(({ owner }) => owner === undefined || owner === key);
  }
  /** What a model is loaded from; undefined if the key has no model with this name. */
  spec(id: string, key?: string): ModelSpec | AdapterSpec | undefined {
    const model = this.#models.all.find((model) => model.id === id);
    return model && (model.owner === undefined || model.owner === key) ? model.spec : undefined;
  }
  /** What the worker reported when it loaded a model; undefined if the model is not loaded. */
  info(id: string): LoadedInfo | undefined {
    return this.#models.all.find((model) => model.id === id)?.info;
  }
  #loadInWorker(spec: ModelSpec | AdapterSpec): Promise<LoadedInfo> {
    return new Promise((resolve, reject) => {
      const hear = ({ loaded }: Update) => loaded && resolve(loaded);
      this.#ask({ left: 0, hear, fail: reject }, (of) => ({ kind: "load", of, spec }));
    });
  }

  generate(request: GenerateRequest, signal: AbortSignal): Generation {
    const model = this.#models.get(request.model, request.key);
    const { prompt, count, maxNewTokens, overflow, key, promptLogprobs } = request;
    if (overflow === undefined && prompt.length + maxNewTokens > model.blockSize) {
      throw new ConfigError(
        `The prompt has ${prompt.length} tokens; with maxNewTokens=${maxNewTokens} that exceeds the model's context of ${model.blockSize} tokens`,
      );
    }
    this.#checkQueue(model, count, key);
    const began = Date.now(),
      pending = new PendingTexts(model, key, count, () => this.#timed((Date.now() - began) / 1000));
    const of = this.#ask(pending, (of) => ({ kind: "generate", of, request, arrived: began }));
    const pieces = pending.pieces(this.#abortWith(signal, of));
    return { pieces, ...promptLogprobs !== undefined && { promptLogprobs: pending.promptLogprobs } };
  }

  embed(
    model: string,
    inputs: readonly (readonly number[])[],
    signal: AbortSignal,
    key?: string,
  ): Promise<Float32Array[]> {
    const entry = this.#models.get(model, key),
      { id, blockSize } = entry,
      long = inputs.find(({ length }) => length < 1 || length > blockSize);
    if (long) throw new ConfigError(`An input has ${long.length} tokens; expected 1 to ${blockSize}`);
    const count = Math.min(inputs.length, MOST_INPUTS);
    this.#checkQueue(entry, count, key);
    return new Promise((resolve, reject) => {
      const hear = ({ vectors }: Update) => {
        pending.left = 0;
        signal.removeEventListener("abort", stop);
        resolve([...vectors!]);
      };
      const pending: Pending = { entry, key, left: count, hear, fail: reject };
      const stop = this.#abortWith(signal, this.#ask(pending, (of) => ({ kind: "embed", of, model: id, inputs })));
    });
  }

  /** Checks that the queue has room. @throws {QueueFull} if it is full, or the key would use more than 3/4 of it */
  #checkQueue({ base, spec, info }: Entry, count: number, key: string | undefined): void {
    if (this.#dead) throw this.#dead;
    if (this.#draining) throw new Draining("The server is shutting down");
    const { queue = 512 } = this.#options, slots = info?.slots ?? (("slots" in spec && spec.slots) || MOST_SLOTS);
    let all = count, own = count;
    for (const pending of this.#pending.values()) {
      if (pending.entry?.base !== base) continue;
      all += pending.left;
      if (pending.key === key) own += pending.left;
    }
    if (all <= slots + queue && (key === undefined || own <= slots + Math.ceil(queue * 3 / 4))) return;
    throw new QueueFull(Math.min(60, Math.max(1, Math.ceil(this.#textSeconds * queue / slots / 2))));
  }
  #timed(seconds: number): void {
    this.#textSeconds += (seconds - this.#textSeconds) / LOOKS_BACK;
  }

  /** Numbers a request, and sends `message(number)` when the model is loaded. Answers repeat the number. */
  #ask(pending: Pending, message: (of: number) => ToWorker): number {
    const of = ++this.#requests, { entry } = pending;
    this.#pending.set(of, pending);
    if (entry) entry.used = performance.now();
    if (!entry || entry.loaded) this.#post(message(of));
    else {
      this.#models.load(entry).then(() => {
        if (this.#pending.has(of)) this.#post(message(of));
      }, (error) => {
        if (!this.#pending.has(of)) return;
        this.#over(of);
        pending.fail(error);
      });
    }
    return of;
  }
  #post(message: ToWorker): void {
    this.#shared.posted();
    this.#worker.postMessage(message);
  }
  /** Aborts a request with a signal. @returns a function that ends the request, and aborts its unfinished texts */
  #abortWith(signal: AbortSignal, of: number): () => void {
    const abort = () => {
      const pending = this.#pending.get(of);
      signal.removeEventListener("abort", abort);
      if (!pending) return;
      this.#post({ kind: "abort", of });
      this.#over(of);
      pending.fail(signal.reason);
    };
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
    return abort;
  }
  #over(of: number): void {
    this.#pending.delete(of);
    if (this.#pending.size === 0) this.#drained();
  }

  #hear({ updates, metrics }: FromWorker): void {
    this.#metrics = metrics;
    for (const update of updates) {
      const pending = this.#pending.get(update.of); // undefined if the request was aborted
      if (!pending) continue;
      if (update.error) pending.left = 0;
      else pending.hear(update);
      if (pending.left === 0) this.#over(update.of);
      if (update.error) pending.fail(fromWire(update.error));
    }
  }

  metrics(): string {
    return metricsText(this.counts);
  }
  /** The worker's counts as of its last message, at most 20 ms ago. */
  get counts(): EngineMetrics {
    return this.#metrics;
  }
  get health(): Engine["health"] {
    const lastStep = this.#shared.busy ? Date.now() - this.#shared.stepped : 0, alive = !this.#dead;
    return { alive, ready: alive && !this.#draining && lastStep < STUCK, lastStep };
  }

  /**
   * Accepts no new requests, and resolves when all texts are finished. Texts that take longer than `ms` milliseconds
   * are aborted.
   */
  async drain(ms: number): Promise<void> {
    this.#draining = true;
    if (this.#pending.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>(), timer = setTimeout(resolve, ms);
    this.#drained = resolve;
    await promise;
    clearTimeout(timer);
    this.#stop(new Draining("The server is shutting down"));
  }
  #stop(error: Error): void {
    for (const [of, pending] of [...this.#pending]) {
      if (!this.#dead) this.#post({ kind: "abort", of });
      this.#over(of);
      pending.fail(error);
    }
  }
  #end(error: Error): void {
    this.#dead ??= error;
    this.#worker.terminate();
    this.#stop(this.#dead);
  }
  /** Ends the worker and everything that runs in it. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#end(new Draining("The server is shutting down"));
    for (const { template } of this.#models.all) template?.[Symbol.dispose]();
    return Promise.resolve();
  }
}
