/**
 * Decides which texts are generated now. Used in the worker. Requests are received between two steps, their texts wait
 * for slots of their model, and new tokens go to the outbox.
 *
 * Texts are served in the order in which they arrived, with one exception: while texts of other keys wait for the same
 * model, a key that holds half of the model's slots gets no more.
 */
import { turn } from "../loop/breather.ts";
import { Turns } from "../files/files.ts";
import type { GenerateRequest } from "./engine_api.ts";
import { type AdapterSpec, type FromWorker, type ModelSpec, type Shared, toWire, type ToWorker } from "./messages.ts";
import { LoadedModels } from "./loaded_models.ts";
import { noMetrics, observe } from "./metrics.ts";
import { Outbox } from "./outbox.ts";
import type { Served } from "./served.ts";
import { Text } from "./text.ts";

/** Milliseconds after which steps pause for other work of the worker, such as reading files. */
const BREATH = 10;
/** Maximum number of turns of the event loop to wait for a message that has been sent. */
const MOST_TURNS = 64;

interface Queue {
  readonly waiting: Text[];
  readonly running: Set<Text>;
  /** Whether `#drive` is running for this model. */ driven: boolean;
}

export class Scheduler implements Disposable {
  readonly metrics = noMetrics();
  readonly #outbox: Outbox;
  readonly #models = new LoadedModels();
  /** The texts of unfinished requests, by request number. */
  readonly #texts = new Map<number, Text[]>();
  readonly #queues = new Map<Served, Queue>();
  /** The controllers that abort unfinished embedding requests. */
  readonly #embeds = new Map<number, AbortController>();
  readonly #turns = new Turns();
  #received = 0;
  #breathed = performance.now();

  constructor(readonly shared: Shared, send: (message: FromWorker) => void) {
    this.#outbox = new Outbox(this.metrics, send);
  }

  /** Handles a message. */
  hear(message: ToWorker): void {
    this.#received++;
    if (message.kind === "load") void this.#load(message.of, message.spec);
    else if (message.kind === "unload") this.#unload(message.id);
    else if (message.kind === "generate") this.#generate(message.of, message.request, message.arrived);
    else if (message.kind === "embed") void this.#embed(message.of, message.model, message.inputs);
    else this.#abort(message.of);
  }

  async #load(of: number, spec: ModelSpec | AdapterSpec): Promise<void> {
    try {
      const loaded = await this.#models.load(spec);
      this.#outbox.of(of).loaded = loaded;
    } catch (error) {
      this.#outbox.of(of).error = toWire(error);
    }
    this.#idle();
    this.#outbox.flush();
  }
  #unload(id: string): void {
    const gone = this.#models.unload(id);
    if (gone) this.#queues.delete(gone);
    this.#count();
  }
  /** A model's queue: its waiting texts in their order of arrival, and its running texts. */
  #queue(served: Served): Queue {
    let queue = this.#queues.get(served);
    if (!queue) this.#queues.set(served, queue = { waiting: [], running: new Set(), driven: false });
    return queue;
  }

  #generate(of: number, request: GenerateRequest, arrived: number): void {
    try {
      const model = this.#models.get(request.model), { served } = model;
      const texts = Array.from({ length: request.count }, (_, i) => new Text(of, i, request, model, arrived));
      this.#texts.set(of, texts);
      this.#queue(served).waiting.push(...texts);
      this.#admit(served);
    } catch (error) {
      this.#outbox.of(of).error = toWire(error);
    }
    this.#idle();
  }

  /** Gives free slots to waiting texts. */
  #admit(served: Served): void {
    const { waiting, running } = this.#queue(served);
    const most = Math.ceil(served.info.slots / 2);
    while (served.rows.free > 0 && waiting.length > 0) {
      const had = Map.groupBy(running, ({ request }) => request.key);
      const next = waiting.findIndex(({ request: { key } }) => (had.get(key)?.length ?? 0) < most);
      const [text] = waiting.splice(Math.max(0, next), 1);
      this.#begin(text);
    }
    this.#count();
  }

  #begin(text: Text): void {
    const queue = this.#queue(text.served);
    try {
      text.begin();
    } catch (error) {
      return this.#fail(text.of, error);
    }
    observe(this.metrics.queueSeconds, (Date.now() - text.arrived) / 1000);
    queue.running.add(text);
    if (!this.shared.busy) this.shared.step();
    this.shared.busy = true;
    if (!queue.driven) void this.#drive(text.served, queue);
  }
  /**
   * Computes a model's steps as long as it has texts, and takes the new tokens. Between two steps other models get
   * their turns.
   */
  async #drive(served: Served, queue: Queue): Promise<void> {
    const { metrics } = this, { running } = queue;
    queue.driven = true;
    for (;;) {
      await this.#breathe(); // requests that arrived together begin together
      if (running.size === 0) return void (queue.driven = false);
      const before = performance.now(), rows = await served.rows.step(), ms = performance.now() - before;
      this.shared.step();
      if (rows > 0) {
        observe(metrics.batchRows, rows);
        observe(metrics.stepSeconds, ms / 1000);
      }
      for (const text of [...running]) this.#take(text);
      this.#outbox.flush(ms);
    }
  }
  /** Takes a text's new tokens after a step. */
  #take(text: Text): void {
    const { of, index, row } = text;
    try {
      for (let token = row!.ready(); token && !text.over; token = row!.ready()) {
        this.#took(text);
        this.#outbox.token(of, index, token);
      }
    } catch (error) {
      return this.#fail(of, error);
    }
    if (text.over || !row!.done) return;
    if (text.last === 0) { // `maxNewTokens` is 0
      this.#read(text);
      this.#outbox.piece(of, index).finish = "length";
    }
    this.#end(text);
  }
  /** Counts a prompt's tokens, and reports its log-probabilities, after the model has computed the prompt. */
  #read({ of, index, request: { prompt, promptLogprobs }, row }: Text): void {
    const { metrics: { promptTokens } } = this, { reused, scores } = row!;
    if (index === 0 && promptLogprobs !== undefined) {
      this.#outbox.of(of).scores = scores.map(({ topLogprobs, ...token }) => ({ ...token, top: topLogprobs }));
    }
    promptTokens.cached += reused;
    promptTokens.computed += prompt.length - reused;
    this.#outbox.piece(of, index).cached = reused;
  }
  /** Counts a token. */
  #took(text: Text): void {
    const { metrics } = this, now = Date.now();
    if (text.last === 0) {
      this.#read(text);
      observe(metrics.firstTokenSeconds, (now - text.arrived) / 1000);
    } else observe(metrics.interTokenSeconds, (now - text.last) / 1000);
    text.last = now;
    metrics.generationTokens++;
  }
  #end(text: Text): void {
    text.over = true;
    this.#queue(text.served).running.delete(text);
    const texts = this.#texts.get(text.of);
    if (texts?.every(({ over }) => over)) this.#texts.delete(text.of);
    this.#admit(text.served);
    this.#idle();
  }
  #fail(of: number, error: unknown): void {
    this.#stop(of);
    this.#outbox.drop(of);
    this.#outbox.of(of).error = toWire(error);
    this.#idle();
  }

  #abort(of: number): void {
    this.#embeds.get(of)?.abort();
    for (const { where } of this.#stop(of)) this.metrics.aborted[where]++;
    this.#outbox.drop(of);
    this.#outbox.of(of); // an empty update, so that the changed counts are sent
    this.#idle();
  }
  /** Ends a request's texts. @returns the texts that were not finished */
  #stop(of: number): Text[] {
    const texts = (this.#texts.get(of) ?? []).filter(({ over }) => !over);
    this.#texts.delete(of);
    for (const text of texts) {
      const { waiting, running } = this.#queue(text.served), at = waiting.indexOf(text);
      text.over = true;
      if (at >= 0) waiting.splice(at, 1);
      running.delete(text);
      text.row?.abort();
    }
    for (const served of new Set(texts.map(({ served }) => served))) this.#admit(served);
    return texts;
  }

  /** Embeds one input after the other, in pieces. Between two pieces, steps of texts can run. */
  async #embed(of: number, model: string, inputs: readonly (readonly number[])[]): Promise<void> {
    const controller = new AbortController(), { signal } = controller;
    this.#embeds.set(of, controller);
    try {
      const { served, adapter } = this.#models.get(model), vectors: Float32Array[] = [];
      const between = async () => {
        await turn();
        signal.throwIfAborted();
      };
      for (const input of inputs) {
        await between();
        vectors.push(await this.#turns.take(() => served.embed(input, adapter, between)));
      }
      this.#outbox.of(of).vectors = vectors;
    } catch (error) {
      if (!signal.aborted) this.#outbox.of(of).error = toWire(error);
    }
    this.#embeds.delete(of);
    this.#idle();
  }

  /** Receives the messages that were sent, and from time to time lets other work of the worker run. */
  async #breathe(): Promise<void> {
    const { shared } = this;
    if (shared.sent === this.#received && performance.now() - this.#breathed < BREATH) return;
    await turn();
    for (let i = 1; i < MOST_TURNS && shared.sent !== this.#received; i++) await turn();
    this.#breathed = performance.now();
  }
  /** Flushes the outbox if no text is running, because no step will do it then. */
  #idle(): void {
    this.#count();
    if (this.metrics.running > 0) return;
    this.shared.busy = false;
    this.#outbox.flush();
  }
  #count(): void {
    const { metrics } = this, served = this.#models.all, queues = [...this.#queues.values()];
    const sum = <T>(all: readonly T[], of: (one: T) => number) => all.reduce((total, one) => total + of(one), 0);
    metrics.running = sum(queues, ({ running }) => running.size);
    metrics.waiting = sum(queues, ({ waiting }) => waiting.length);
    metrics.slots = sum(served, ({ info }) => info.slots);
    metrics.cacheBytes = sum(served, ({ rows }) => rows.cacheBytes);
    metrics.deviceBytes = sum(served, ({ device }) => device.memory().bytes);
    metrics.tensors = sum(served, ({ device }) => device.memory().tensors);
  }

  [Symbol.dispose](): void {
    for (const of of [...this.#texts.keys(), ...this.#embeds.keys()]) this.#abort(of);
    this.#models[Symbol.dispose]();
  }
}
