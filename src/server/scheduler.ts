/**
 * Which texts are written now. In the worker: requests come in between two steps, their texts wait for slots of their model, and
 * what is written goes to the outbox.
 *
 * First come, first served; but where others wait for the same model, a key that has half of its slots lets them go first.
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

/** Milliseconds without a turn for what else the worker has to do, such as reading files. */
const BREATH = 10;
/** Turns in which a message that was sent has come. */
const MOST_TURNS = 64;

interface Queue {
  readonly waiting: Text[];
  readonly running: Set<Text>;
  /** Whether steps are being computed. */ driven: boolean;
}

export class Scheduler implements Disposable {
  readonly metrics = noMetrics();
  readonly #outbox: Outbox;
  readonly #models = new LoadedModels();
  /** Of requests that are not over. */
  readonly #texts = new Map<number, Text[]>();
  readonly #queues = new Map<Served, Queue>();
  /** Embeddings that were asked for. */
  readonly #embeds = new Map<number, AbortController>();
  readonly #turns = new Turns();
  #received = 0;
  #breathed = performance.now();

  constructor(readonly shared: Shared, send: (message: FromWorker) => void) {
    this.#outbox = new Outbox(this.metrics, send);
  }

  /** Takes a message. */
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
  /** Of a model: who waits, in the order in which they came, and who is written. */
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

  /** Gives free slots to those that wait. */
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
  /** Computes a model's steps as long as there is a text, and takes their tokens. Between two steps others have their turns. */
  async #drive(served: Served, queue: Queue): Promise<void> {
    const { metrics } = this, { running } = queue;
    queue.driven = true;
    for (;;) {
      await this.#breathe(); // what has come at once begins together
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
  /** Takes what a step has written of a text. */
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
    if (text.last === 0) { // none were asked for
      this.#read(text);
      this.#outbox.piece(of, index).finish = "length";
    }
    this.#end(text);
  }
  /** The prompt has been read. */
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
    this.#outbox.of(of); // nobody waits for it, but what is counted goes with it
    this.#idle();
  }
  /** Ends a request's texts. @returns those that were not over */
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

  /** One input after the other, in pieces between which those that write go on. */
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

  /** Lets messages in that were sent, and now and then whatever else is waiting. */
  async #breathe(): Promise<void> {
    const { shared } = this;
    if (shared.sent === this.#received && performance.now() - this.#breathed < BREATH) return;
    await turn();
    for (let i = 1; i < MOST_TURNS && shared.sent !== this.#received; i++) await turn();
    this.#breathed = performance.now();
  }
  /** Where nothing is written any more, nobody else flushes. */
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
