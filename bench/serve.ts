/**
 * What serving costs: `deno task bench:serve`. The server is a process of its own. The clients run in this process, on
 * the same processors. In turns with the server, `Rows` generates the same texts without a server, and the best results
 * of both are compared.
 *
 * Weights are random numbers, which take as much time as trained weights.
 */
import { createDevice, type GPT, RandomGenerator, Rows } from "../mod.ts";
import { saveGguf, saveHuggingFace } from "../src/checkpoint/mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { choice, describeFlags, fallbacks, int, parseCommandLine, text } from "../src/cli/flags.ts";
import { loadPretrained } from "../src/pretrained/load.ts";
import { KeyRing } from "../src/server/auth.ts";
import { CharacterTokenizer } from "../src/tokenizer/mod.ts";
import { randomModel } from "./subjects.ts";

const flags = {
  only: choice(
    ["", "small", "job", "gpt2"],
    "the 0.8 M model, that model beside a fine-tuning job, or GPT-2's 124 M; default: all",
  ),
  threads: int(navigator.hardwareConcurrency, "threads that compute", { min: 1, max: 256 }),
  rounds: int(4, "rounds in which all sides take turns", { min: 1 }),
  llama: text("", "llama.cpp's llama-server, on the PATH, to compare with at GPT-2's sizes"),
};
type Options = ReturnType<typeof fallbacks<typeof flags>>;

const SMALL = { nLayer: 4, nHead: 4, nEmbd: 128, vocabSize: 65, blockSize: 64 };
const GPT2 = { nLayer: 12, nHead: 12, nEmbd: 768, vocabSize: 50257, blockSize: 1024, activation: "gelu_new" as const };
const tokenizer = new CharacterTokenizer(Array.from({ length: 65 }, (_, i) => String.fromCodePoint(0x400 + i)));

interface Ask {
  readonly prompt: readonly number[];
  readonly tokens: number;
  readonly seed: number;
}
const asks = (count: number, length: number, tokens: number): Ask[] =>
  Array.from({ length: count }, (_, seed) => ({
    prompt: Array.from({ length }, (_, i) => (31 * seed + i) % 65),
    ...{ tokens, seed },
  }));

const encoder = new TextEncoder(), decoder = new TextDecoder();

/** A server process: this library's or llama.cpp's. */
class Server implements AsyncDisposable {
  /** Whether to ask llama.cpp's server to ignore end tokens: our models have none. */
  ignoresEnds: boolean | undefined;

  private constructor(
    readonly url: string,
    readonly child: Deno.ChildProcess,
    readonly seconds: number,
    readonly loaded: number,
  ) {}

  static async start(program: string, args: readonly string[], ready: RegExp): Promise<Server> {
    const began = performance.now();
    const child = new Deno.Command(program, { args: [...args], stdout: "piped", stderr: "piped" }).spawn();
    const decoder = new TextDecoder();
    let shown = "";
    const watch = async (stream: ReadableStream<Uint8Array>, found: (match: RegExpExecArray) => void) => {
      for await (const chunk of stream) {
        shown = (shown + decoder.decode(chunk, { stream: true })).slice(-10_000);
        const match = ready.exec(shown);
        if (match) found(match);
      }
    };
    const match = await new Promise<RegExpExecArray>((resolve, reject) => {
      void Promise.all([watch(child.stdout, resolve), watch(child.stderr, resolve)]).then(() =>
        reject(new Error(shown))
      );
    });
    const loaded = /loaded in ([\d.]+) s/.exec(shown)?.[1];
    return new Server(match[1], child, (performance.now() - began) / 1000, Number(loaded));
  }
  /** Starts this library's server. */
  static ours(model: string, { threads }: Options, ...more: string[]): Promise<Server> {
    const args = [
      "run",
      "--no-prompt",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-net=127.0.0.1",
      "--allow-sys=systemMemoryInfo,statfs",
      "src/cli/serve.ts",
    ];
    const own = [`--model=${model},name=m`, `--threads=${threads}`, "--port=0", ...more];
    return Server.start(Deno.execPath(), [...args, ...own], /Ready at (http:\S+?)\/v1/);
  }

  /** Seconds of processor time so far; NaN if the server does not report it. */
  async cpu(): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(/^process_cpu_seconds_total (.*)$/m.exec(text)?.[1]);
  }

  /**
   * Streams a text.
   *
   * @returns the arrival times in milliseconds since the request, and the number of tokens
   */
  async stream({ prompt, tokens, seed }: Ask, signal?: AbortSignal): Promise<{ times: number[]; tokens: number }> {
    const began = performance.now(), times: number[] = [], { hostname, port } = new URL(this.url);
    const body = JSON.stringify({
      ...{ model: "m", prompt, max_tokens: tokens, temperature: 0.8, seed, stream: true, ignore_eos: this.ignoresEnds },
      stream_options: { include_usage: true },
    });
    // A plain TCP connection: fetch would use more of the processors than the server does.
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const stop = () => connection.close();
    signal?.addEventListener("abort", stop);
    const head =
      `POST /v1/completions HTTP/1.1\r\nhost: ${hostname}\r\ncontent-type: application/json\r\nconnection: close`;
    await connection.write(encoder.encode(`${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`));
    const buffer = new Uint8Array(65536);
    let rest = "";
    for (let n; (n = await connection.read(buffer)) !== null;) {
      const said = decoder.decode(buffer.subarray(0, n));
      if (/"(text|content)":/.test(said)) times.push(performance.now() - began);
      rest = rest.slice(-1000) + said;
    }
    signal?.removeEventListener("abort", stop);
    if (!/^data: \[DONE\]/m.test(rest)) throw new Error(rest);
    const count = Number(/"completion_tokens":(\d+)/.exec(rest)![1]);
    return { times, tokens: count };
  }
  /**
   * Asks for all texts at once. Returns the tokens a second, and the server's processor time per token in microseconds.
   */
  async rate(all: readonly Ask[]): Promise<{ rate: number; cpu: number }> {
    const cpu = await this.cpu(), began = performance.now();
    const streams = await Promise.all(all.map((ask) => this.stream(ask)));
    const tokens = streams.reduce((sum, { tokens }) => sum + tokens, 0),
      rate = 1000 * tokens / (performance.now() - began);
    return { rate, cpu: 1e6 * (await this.cpu() - cpu) / tokens };
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.status;
  }
}

/**
 * Generates the texts without a server.
 *
 * @returns tokens a second
 */
async function rowsRate(rows: Rows, all: readonly Ask[]): Promise<number> {
  const began = performance.now(), waiting = [...all];
  let count = 0;
  await Promise.all(Array.from({ length: Math.min(rows.free, all.length) }, async () => {
    for (let ask = waiting.shift(); ask; ask = waiting.shift()) {
      const { prompt, tokens, seed } = ask;
      const row = rows.add({
        prompt,
        maxNewTokens: tokens,
        seed,
        temperature: 0.8,
        draws: "philox",
        overflow: "refuse",
      });
      for await (const _ of row) count++;
    }
  }));
  return 1000 * count / (performance.now() - began);
}

const print = (line: string) => console.log(line), show = (value: number) => value.toPrecision(3);

/** Compares texts streamed by the server with texts generated by `Rows` without a server. */
async function throughput(
  name: string,
  server: Server,
  model: GPT,
  options: { asks: readonly Ask[]; slots: number; rounds: number },
) {
  using rows = new Rows(model, { slots: options.slots });
  let best = 0, alone = 0, cpu = Infinity;
  for (let round = 0; round <= options.rounds; round++) {
    const served = await server.rate(options.asks), without = await rowsRate(rows, options.asks);
    if (round === 0) continue; // kernels compile
    best = Math.max(best, served.rate);
    cpu = Math.min(cpu, served.cpu);
    alone = Math.max(alone, without);
  }
  print(`| ${name} | ${show(best)} | ${show(alone)} | ${show(best / alone)} | ${show(cpu)} |`);
}

/** Measures how long prompts wait for their first token: alone, beside seven streams that write, and eight at once. */
async function latency(server: Server, { rounds }: Options): Promise<void> {
  const long = (seed: number): Ask => { // no cached prompt begins like this one
    const random = new RandomGenerator(seed);
    return { prompt: Array.from({ length: 128 }, () => random.randint(GPT2.vocabSize)), tokens: 8, seed };
  };
  const first = async (ask: Ask) => (await server.stream(ask)).times[0];
  const least = async (measure: (round: number) => Promise<number[]>) => {
    const all: number[][] = [];
    for (let round = 0; round < rounds; round++) all.push(await measure(round));
    return all[0].map((_, k) => Math.min(...all.map((times) => times[k])));
  };
  let seed = 1000;
  const [alone] = await least(async () => [await first(long(seed++))]);
  const beside = await least(async () => {
    const stop = new AbortController(), gaps: number[] = [];
    const running = asks(7, 16, 400).map(async (ask, i) => {
      try {
        const { times } = await server.stream({ ...ask, seed: seed + 50 * i }, stop.signal);
        gaps.push(...times.slice(1).map((time, k) => time - times[k]));
      } catch { /* aborted */ }
    });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const time = await first(long(seed++));
    stop.abort();
    await Promise.all(running);
    return [time];
  });
  const together = await least(async () =>
    (await Promise.all(Array.from({ length: 8 }, () => first(long(seed++))))).sort((a, b) => a - b)
  );
  print(
    `\nFirst token of a prompt of 128: alone ${show(alone)} ms; beside seven that write ${show(beside[0])} ms, ${
      show(beside[0] / alone)
    } ×`,
  );
  print(`Eight at once: ${together.map((time, k) => `${show(time / alone / (k + 1))} · ${k + 1}`).join(", ")} ×`);
}

/**
 * Streams eight texts at once, again and again, for some seconds.
 *
 * @returns tokens a second
 */
async function sustained(server: Server, seconds = 2): Promise<number> {
  const began = performance.now();
  let count = 0;
  while (performance.now() - began < 1000 * seconds) {
    const streams = await Promise.all(asks(8, 8, 56).map((ask) => server.stream(ask)));
    count += streams.reduce((sum, { tokens }) => sum + tokens, 0);
  }
  return 1000 * count / (performance.now() - began);
}

/** Compares eight streams alone with eight streams while a supervised job trains an adapter of their model. */
async function besideJob(model: string, folder: string, options: Options): Promise<void> {
  const keys = `${folder}/keys.json`, { key } = await (await KeyRing.open(keys)).make("bench");
  await using server = await Server.ours(model, options, `--keys=${keys}`, `--jobs=${folder}/jobs`);
  const headers = { authorization: `Bearer ${key}` }, jobs = `${server.url}/v1/fine_tuning/jobs`;
  const ask = async (path: string, init?: RequestInit) => {
    const response = await fetch(path, { ...init, headers: { ...init?.headers, ...headers } }),
      answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    return answer;
  };
  const random = new RandomGenerator(1), form = new FormData();
  const word = (length: number) => tokenizer.decode(Array.from({ length }, () => random.randint(65)));
  const rows = Array.from({ length: 2000 }, () => JSON.stringify({ prompt: word(20), completion: word(40) }));
  form.set("purpose", "fine-tune");
  form.set("file", new File([rows.join("\n")], "rows.jsonl"));
  const { id: training_file } = await ask(`${server.url}/v1/files`, { method: "POST", body: form });
  const body = JSON.stringify({ model: "m", training_file, hyperparameters: { n_epochs: 8 } });
  const { id } = await ask(jobs, { method: "POST", headers: { "content-type": "application/json" }, body });
  const steps = async () => {
    const { data } = await ask(`${jobs}/${id}/events?limit=20`) as {
      data: { type: string; data?: { step: number } }[];
    };
    return data.find(({ type }) => type === "metrics")?.data?.step ?? -1;
  };
  let alone = 0, beside = 0, trained = 0;
  for (let round = 0; round <= options.rounds; round++) {
    let before = -1;
    while (before < 1) { // until the job trains
      await new Promise((resolve) => setTimeout(resolve, 200));
      before = await steps();
    }
    const with_ = await sustained(server), done = await steps() - before;
    await ask(`${jobs}/${id}/pause`, { method: "POST" });
    await new Promise((resolve) => setTimeout(resolve, 1500)); // time for the job to save
    const without = await sustained(server);
    await ask(`${jobs}/${id}/resume`, { method: "POST" });
    if (round === 0) continue;
    [alone, beside, trained] = [Math.max(alone, without), Math.max(beside, with_), Math.max(trained, done)];
  }
  print(
    `\n0.8 M, 8 streams beside a job that trains an adapter: ${show(beside)} tokens/s, alone ${show(alone)}, ${
      show(beside / alone)
    } ×; the job made ${show(trained / 2)} updates a second`,
  );
}

async function bench(options: Options): Promise<void> {
  using device = await createDevice("cpu", { threads: options.threads });
  const folder = await Deno.makeTempDir(), { rounds } = options;
  print(`${device.description}; Deno ${Deno.version.deno}, rounds: ${rounds}\n`);
  const head = ["model, streams", "tokens/s", "without a server", "ratio", "server's CPU, µs a token"];
  const save = async (config: typeof SMALL | typeof GPT2) => {
    const path = `${folder}/${config.nLayer}`;
    if (!await Deno.stat(path).catch(() => undefined)) {
      using model = randomModel(device, config, "f32");
      await saveHuggingFace(model, path, { tokenizer });
    }
    return path;
  };
  const begin = async (config: typeof SMALL | typeof GPT2, weights: "f32" | "bf16" | "q8_0") => {
    const path = await save(config),
      server = await Server.ours(path, options, `--weights=${weights}`),
      { model } = await loadPretrained(path, { device, weights, inference: true });
    print(`\nready after ${show(server.seconds)} s, of which the model took ${show(server.loaded)} s to load\n`);
    print(`| ${head.join(" | ")} |\n|${" --- |".repeat(head.length)}`);
    return { server, model };
  };
  try {
    if (!options.only || options.only === "small") {
      const { server, model } = await begin(SMALL, "f32");
      await using _ = server;
      for (const count of [8, 200]) {
        await throughput(`0.8 M, ${count}`, server, model, {
          asks: asks(count, 8, 56),
          slots: Math.min(count, 64),
          rounds,
        });
      }
      model.dispose();
    }
    if (!options.only || options.only === "job") await besideJob(await save(SMALL), folder, options);
    for (const weights of !options.only || options.only === "gpt2" ? ["f32", "bf16", "q8_0"] as const : []) {
      const { server, model } = await begin(GPT2, weights);
      await using _ = server;
      await throughput(`124 M ${weights}, 8`, server, model, { asks: asks(8, 32, 64), slots: 8, rounds });
      if (weights === "f32") await latency(server, options);
      else if (options.llama) {
        await beside(server, model, { ...options, folder, dtype: weights === "bf16" ? "F16" : "Q8_0" });
      }
      model.dispose();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Compares with llama.cpp's own server, on the same model. */
async function beside(
  ours: Server,
  model: GPT,
  { folder, dtype, llama, threads, rounds }: Options & { folder: string; dtype: "F16" | "Q8_0" },
): Promise<void> {
  const file = `${folder}/model.gguf`,
    small = new CharacterTokenizer(Array.from({ length: 65 }, (_, i) => String.fromCharCode(33 + i)));
  await saveGguf(file, model, { tokenizer: small, dtype });
  const args = [
    "-m",
    file,
    "-np",
    "8",
    "-t",
    `${threads}`,
    "-c",
    "8192",
    "--port",
    "8099",
    "--host",
    "127.0.0.1",
    "--no-warmup",
  ];
  await using peer = await Server.start(llama, args, /listening on (http:\/\/[\d.:]+)/);
  peer.ignoresEnds = true;
  let best = 0, other = 0;
  for (let round = 0; round <= rounds; round++) {
    const all = asks(8, 32, 64), [{ rate }, { rate: theirs }] = [await ours.rate(all), await peer.rate(all)];
    if (round > 0) [best, other] = [Math.max(best, rate), Math.max(other, theirs)];
  }
  print(`\nllama-server, ${dtype}, 8 streams: ${show(other)} tokens/s; ours ${show(best)}, ${show(best / other)} ×`);
}

if (import.meta.main) {
  await runCommand(async (args) => {
    const { given, help } = parseCommandLine(flags, args), values = { ...fallbacks(flags), ...given };
    if (help) console.log(describeFlags(flags, values));
    else await bench(values);
    return 0;
  });
}
