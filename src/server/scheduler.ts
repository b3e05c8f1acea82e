/**
 * Which texts are written now. In the worker: requests come in between two steps, their texts wait for slots of their model, and
 * what is written goes to the outbox.
 *
 * First come, first served; but where others wait for the same model, a key that has half of its slots lets them go first.
 */
import { turn } from "../loop/breather.ts";
import type { Row, RowRequest } from "../generate/row.ts";
import { ConfigError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import type { GenerateRequest } from "./engine_api.ts";
import {
  type AdapterSpec,
  type FromWorker,
  type LoadedInfo,
  type ModelSpec,
  type Shared,
  toWire,
  type ToWorker,
} from "./messages.ts";
import { noMetrics, observe, type Where } from "./metrics.ts";
import { Outbox } from "./outbox.ts";
import { Served } from "./served.ts";

/** Milliseconds without a turn for what else the worker has to do, such as reading files. */
const BREATH = 10;
/** Turns in which a message that was sent has come. */
const MOST_TURNS = 64;

/** What a name stands for: a model, with the adapter of this number; 0 is none. */
interface Model {
  readonly served: Served;
  readonly adapter: number;
}

/** One text of a request. */
interface Text {
  readonly of: number;
  readonly index: number;
  readonly request: GenerateRequest;
  readonly served: Served;
  readonly adapter: number;
  /** In milliseconds since 1970. */ readonly arrived: number;
  row?: Row;
  /** When its last token came; 0 before the first. */ last: number;
  over: boolean;
}

export class Scheduler implements Disposable {
  readonly metrics = noMetrics();
  readonly #outbox: Outbox;
  readonly #models = new Map<string, Model>();
  /** Of requests that are not over. */
  readonly #texts = new Map<number, Text[]>();
  /** In the order in which they came. */
  readonly #waiting = new Map<Served, Text[]>();
  readonly #running = new Map<Served, Set<Text>>();
  /** Models whose steps are being computed. */
  readonly #driven = new Set<Served>();
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
      const loaded = "base" in spec ? await this.#loadAdapter(spec) : await this.#loadModel(spec.id, spec);
      this.#outbox.of(of).loaded = loaded;
    } catch (error) {
      this.#outbox.of(of).error = toWire(error);
    }
    this.#count();
    this.#outbox.flush();
  }
  async #loadModel(id: string, spec: ModelSpec): Promise<LoadedInfo> {
    const served = await Served.load({ ...spec, id });
    this.#models.set(id, { served, adapter: 0 });
    this.#waiting.set(served, []);
    this.#running.set(served, new Set());
    return served.info;
  }
  async #loadAdapter({ id, base, path, run }: AdapterSpec): Promise<LoadedInfo> {
    const { served } = this.#model(base), notes: string[] = [];
    const adapter = await served.adapters.add(path, { onNote: (line) => notes.push(line) });
    if (adapter === undefined) {
      const { notes, ...info } = await this.#loadModel(id, {
        ...served.spec,
        ...run ? { path: run } : { adapter: path },
      });
      return {
        ...info,
        notes: [...notes, `${id} has more than pairs of matrices, and so a copy of ${base} of its own`],
      };
    }
    this.#models.set(id, { served, adapter });
    return { ...served.info, notes };
  }

  /** Nothing is written with it any more. */
  #unload(id: string): void {
    const { served, adapter } = this.#model(id);
    this.#models.delete(id);
    if (adapter > 0) served.adapters.remove(adapter);
    else {
      for (const [name, model] of this.#models) if (model.served === served) this.#models.delete(name);
      this.#waiting.delete(served);
      this.#running.delete(served);
      served[Symbol.dispose]();
    }
    this.#count();
  }

  #model(id: string): Model {
    const model = this.#models.get(id);
    if (!model) throw new ConfigError(`No model is called ${id}`);
    return model;
  }

  #generate(of: number, request: GenerateRequest, arrived: number): void {
    try {
      const { served, adapter } = this.#model(request.model);
      const texts = Array.from({ length: request.count }, (_, index): Text => ({
        ...{ of, index, request, served, adapter, arrived },
        ...{ last: 0, over: false },
      }));
      this.#texts.set(of, texts);
      this.#waiting.get(served)!.push(...texts);
      this.#admit(served);
    } catch (error) {
      this.#outbox.of(of).error = toWire(error);
    }
    this.#idle();
  }

  /** Gives free slots to those that wait. */
  #admit(served: Served): void {
    const waiting = this.#waiting.get(served)!, running = this.#running.get(served)!;
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
    const { of, served } = text, running = this.#running.get(served)!;
    try {
      text.row = served.rows.add(rowRequest(text));
    } catch (error) {
      return this.#fail(of, error);
    }
    observe(this.metrics.queueSeconds, (Date.now() - text.arrived) / 1000);
    running.add(text);
    if (!this.shared.busy) this.shared.step();
    this.shared.busy = true;
    if (!this.#driven.has(served)) void this.#drive(served);
  }
  /** Computes a model's steps as long as there is a text, and takes their tokens. Between two steps others have their turns. */
  async #drive(served: Served): Promise<void> {
    const running = this.#running.get(served)!, { metrics } = this;
    this.#driven.add(served);
    for (;;) {
      await this.#breathe(); // what has come at once begins together
      if (running.size === 0) return void this.#driven.delete(served);
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
    this.#running.get(text.served)!.delete(text);
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
    for (const { row, last } of this.#stop(of)) {
      const where: Where = !row ? "queued" : last === 0 ? "prompt" : "decode";
      this.metrics.aborted[where]++;
    }
    this.#outbox.drop(of);
    this.#outbox.of(of); // nobody waits for it, but what is counted goes with it
    this.#idle();
  }
  /** Ends a request's texts. @returns those that were not over */
  #stop(of: number): Text[] {
    const texts = (this.#texts.get(of) ?? []).filter(({ over }) => !over);
    this.#texts.delete(of);
    for (const text of texts) {
      const waiting = this.#waiting.get(text.served)!, at = waiting.indexOf(text);
      text.over = true;
      if (at >= 0) waiting.splice(at, 1);
      this.#running.get(text.served)!.delete(text);
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
      const { served, adapter } = this.#model(model), vectors: Float32Array[] = [];
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
    const { metrics } = this,
      served = [...this.#running.keys()],
      sum = (of: (served: Served) => number) => served.reduce((total, one) => total + of(one), 0);
    metrics.running = sum((one) => this.#running.get(one)!.size);
    metrics.waiting = sum((one) => this.#waiting.get(one)!.length);
    metrics.slots = sum(({ info }) => info.slots);
    metrics.cacheBytes = sum(({ rows }) => rows.cacheBytes);
    metrics.deviceBytes = sum(({ device }) => device.memory().bytes);
    metrics.tensors = sum(({ device }) => device.memory().tensors);
  }

  [Symbol.dispose](): void {
    for (const of of [...this.#texts.keys(), ...this.#embeds.keys()]) this.#abort(of);
    for (const served of this.#running.keys()) served[Symbol.dispose]();
  }
}

/** A text as a row. */
function rowRequest({ index, request, served, adapter }: Text): RowRequest {
  const { model: _, count: __, seed, stop, endIds = [], spoken = false, logitBias, key = "", ...rest } = request;
  return {
    ...rest,
    draws: "philox",
    seed: seed + index,
    stopStrings: stop,
    eosTokenId: [...served.info.endIds, ...endIds],
    tokenizer: served.decoding(stop, spoken),
    logitBias: logitBias.size > 0 ? Object.fromEntries(logitBias) : undefined,
    promptLogprobs: index === 0 ? request.promptLogprobs : undefined,
    overflow: request.overflow ?? "refuse",
    shares: key,
    tag: adapter,
  };
}
