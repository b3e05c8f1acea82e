/**
 * How the cost of a training step depends on the size of the model, the context, the batch and the number of threads:
 * `deno task bench:scale`.
 *
 * Runs nanoGPT's CPU setting with one size changed at a time, through the real trainer on random tokens. Each row of
 * the table has the median time of a step, the rate of multiplications and additions (which kernels count for
 * themselves), the memory that was estimated beforehand (src/train/memory.ts), and the memory that the device took in
 * the end. `--plot=FILE` draws the times as an SVG chart.
 */
import {
  checkTraining,
  createDevice,
  type DeviceName,
  GPT,
  type GPTConfig,
  RandomGenerator,
  Trainer,
  trainingNeeds,
} from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, float, int, text } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { ConfigError, DeviceError } from "../src/errors.ts";
import { type Panel, plot } from "../src/page/plot.ts";

const flags = {
  sweep: text("size,context,batch,threads", "sweeps to measure, separated by commas"),
  threads: int(navigator.hardwareConcurrency, "threads, except in the sweep of threads", { min: 1, max: 256 }),
  device: text("cpu", "device, as in createDevice"),
  seconds: float(1.5, "least duration of a row's steps, in seconds", { min: 0 }),
  small: bool(false, "tiny sizes, to test that it runs"),
  plot: text("", "SVG file to write, e.g. docs/scaling.svg; default: none"),
};

interface Setting extends Pick<GPTConfig, "vocabSize" | "blockSize" | "nLayer" | "nHead" | "nEmbd"> {
  readonly batchSize: number;
  readonly threads: number;
}

/** The measurements of one setting. */
export interface Row extends Setting {
  readonly parameters: number;
  readonly ms: number;
  readonly flops: number;
  /** Memory in bytes: estimated beforehand, and taken in the end. */
  readonly estimated: number;
  readonly taken: number;
}

interface Sweep {
  readonly name: string;
  readonly settings: readonly Partial<Setting>[];
  readonly xLabel: string;
  readonly x: (row: Row) => number;
  readonly slope: number;
  /** The name of the line in the chart that a row belongs to. Default: all rows are on one line. */
  readonly line?: (row: Row) => string;
}

const CPU_SETTING = { vocabSize: 65, blockSize: 64, nLayer: 4, nHead: 4, nEmbd: 128, batchSize: 12 };
const SMALL = { vocabSize: 11, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16, batchSize: 2 };
const model = (nLayer: number, nHead: number, nEmbd: number) => ({ nLayer, nHead, nEmbd });
const BABY = { ...model(6, 6, 384), blockSize: 256, batchSize: 4 };

function sweeps(small: boolean): Sweep[] {
  const sizes = small ? [model(1, 1, 8), model(1, 2, 16)] : [
    ...[model(2, 2, 32), model(2, 2, 64), model(4, 4, 128), model(6, 6, 192), model(6, 6, 384), model(8, 8, 512)],
    ...[model(12, 12, 768), { ...model(12, 12, 768), vocabSize: 50304 }], // the last size is GPT-2 (124M)
  ];
  const contexts = small ? [4, 8] : [16, 32, 64, 128, 256, 512, 1024];
  const batches = small ? [1, 2] : [1, 2, 4, 8, 12, 24, 48, 96];
  const threads = (small ? [1, 2] : [1, 2, 4]).map((threads) => ({ threads }));
  const larger = small ? { blockSize: 16 } : BABY;
  return [
    { name: "size", settings: sizes, xLabel: "parameters", x: ({ parameters }) => parameters, slope: 1 },
    {
      name: "context",
      settings: contexts.map((blockSize) => ({ blockSize })),
      xLabel: "context (tokens)",
      x: ({ blockSize }) => blockSize,
      slope: 1,
    },
    {
      name: "batch",
      settings: batches.map((batchSize) => ({ batchSize })),
      xLabel: "batch (sequences)",
      x: ({ batchSize }) => batchSize,
      slope: 1,
    },
    {
      name: "threads",
      settings: [...threads, ...threads.map((one) => ({ ...larger, ...one }))],
      xLabel: `threads (${navigator.hardwareConcurrency} processors)`,
      x: ({ threads }) => threads,
      slope: -1,
      line: ({ nLayer, blockSize }) => blockSize === larger.blockSize ? "baby" : `${nLayer} layers`,
    },
  ];
}

const WARM_UP = 3;
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

/**
 * Measures one setting.
 *
 * @throws {DeviceError} if it does not fit into the device's memory
 */
async function measure(
  { threads, batchSize, ...sizes }: Setting,
  { device: name, seconds }: { device: string; seconds: number },
): Promise<Row> {
  const device = await createDevice(name as DeviceName, name === "cpu" ? { threads } : {});
  try {
    const config = { ...sizes, dropout: 0, bias: false }, generator = new RandomGenerator(1337);
    // A batch is evaluated before the first and before every third step, because memory has to hold evaluations, too.
    const run = { maxIters: 1e9, evalInterval: WARM_UP, evalIters: 1, logInterval: 1 };
    const options = { batchSize, gradientAccumulationSteps: 1, ...run };
    await checkTraining(config, { ...options, device });
    const { bytes: estimated, flops } = await trainingNeeds(config, { ...options, device });
    const tokens = Int32Array.from({ length: 10_000 }, () => generator.randint(config.vocabSize));
    const gpt = new GPT(config, { device, generator });
    using trainer = new Trainer(gpt, { train: tokens, val: tokens }, { ...options, generator });
    const times: number[] = [];
    let begin = 0;
    for await (const event of trainer.run()) {
      if (event.kind !== "step" || event.iter < WARM_UP) continue;
      if (times.length === 0) begin = performance.now() - event.ms;
      times.push(event.ms);
      if (times.length >= 3 && performance.now() - begin >= 1000 * seconds) break;
    }
    const parameters = gpt.numParameters({ nonEmbedding: false }), { reserved: taken } = device.memory();
    return { ...sizes, batchSize, threads, parameters, ms: median(times), flops, estimated, taken };
  } finally {
    device.close();
  }
}

const HEADS = ["sweep", "layers, heads, width", "context", "batch", "threads", "parameters", "tokens a step"];
const MEASURED = ["ms a step", "tokens/s", "GFLOP/s", "memory estimated", "taken"];

function cells(row: Row): string[] {
  const { nLayer, nHead, nEmbd, blockSize, batchSize, threads, parameters, ms, flops, estimated, taken } = row;
  const show = (value: number, digits = 3) => value.toLocaleString("en-US", { maximumSignificantDigits: digits });
  const tokens = batchSize * blockSize, million = (value: number) => `${show(value / 1e6)} M`;
  const sizes = [`${nLayer}, ${nHead}, ${nEmbd}`, blockSize, batchSize, threads, million(parameters), show(tokens, 6)];
  const rates = [show(ms), show(tokens / ms * 1000), show(flops / ms / 1e6)];
  const memory = [estimated, taken].map((bytes) =>
    `${(bytes / 1e6).toLocaleString("en-US", { maximumFractionDigits: 2 })} MB`
  );
  return [...sizes.map(String), ...rates, ...memory];
}

type Print = (line: string) => void;

/**
 * Runs the benchmark.
 *
 * @param note prints a line about its progress
 */
export async function benchScale(args: string[], print: Print, note: Print = console.error): Promise<number> {
  const values = benchValues(flags, { task: "bench:scale", args, print });
  if (!values) return 0;
  const all = sweeps(values.small), wanted = values.sweep.split(",");
  const unknown = wanted.find((name) => !all.some((sweep) => sweep.name === name));
  if (unknown !== undefined) throw new ConfigError(`--sweep has ${unknown}; expected ${all.map(({ name }) => name)}`);
  const base = { ...values.small ? SMALL : CPU_SETTING, threads: values.threads }, panels: Panel[] = [];
  const line = (cells: readonly string[]) => print(`| ${cells.join(" | ")} |`);
  line([...HEADS, ...MEASURED]);
  line([...HEADS, ...MEASURED].map(() => "---"));
  for (const sweep of all.filter(({ name }) => wanted.includes(name))) {
    const lines = new Map<string, [number, number][]>();
    for (const changed of sweep.settings) {
      note(`${sweep.name}: ${JSON.stringify(changed)}`);
      try {
        const row = await measure({ ...base, ...changed }, values), name = sweep.line?.(row) ?? "";
        line([sweep.name, ...cells(row)]);
        lines.set(name, [...lines.get(name) ?? [], [sweep.x(row), row.ms]]);
      } catch (error) {
        if (!(error instanceof DeviceError)) throw error;
        note(`left out: ${error.message.split("\n")[0]}`);
      }
    }
    const series = [...lines].map(([name, points]) => ({ name, points })), { xLabel, slope } = sweep;
    const points = new Set(series.flatMap(({ points }) => points.map(([x]) => x)));
    const ticks = sweep.name === "size" ? undefined : [...points];
    const title = `Cost against ${sweep.name}`;
    if (points.size > 0) panels.push({ title, xLabel, yLabel: "ms a step", series, slope, ticks });
  }
  if (values.plot) {
    const words = "What a training step costs, in milliseconds, on logarithmic axes; dashed: in proportion";
    await Deno.writeTextFile(values.plot, plot(panels, words));
    note(`drawn: ${values.plot}`);
  }
  return 0;
}

if (import.meta.main) await runCommand((args) => benchScale(args, console.log));
