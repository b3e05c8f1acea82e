/**
 * What a training step costs on a busy machine: `deno task bench:busy`. Measures steps of nanoGPT's CPU setting alone,
 * and while other processes run endless loops, by default one per processor.
 *
 * If every processor is shared by two threads, a step should take about twice as long. If threads waited for one
 * another by spinning, it would take far longer, because all would wait for the thread that the system has suspended.
 */
import { createDevice, GPT, RandomGenerator, Trainer } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, float, int } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";

const flags = {
  threads: int(navigator.hardwareConcurrency, "threads of the training step", { min: 1, max: 256 }),
  loops: int(navigator.hardwareConcurrency, "processes with endless loops beside the training", { min: 1, max: 256 }),
  rounds: int(4, "rounds, each with a measurement alone and a busy one", { min: 1 }),
  seconds: float(3, "least duration of a measurement, in seconds", { min: 0 }),
  small: bool(false, "tiny sizes, to test that it runs"),
};

const CPU_SETTING = { vocabSize: 65, blockSize: 64, nLayer: 4, nHead: 4, nEmbd: 128, dropout: 0, bias: false };
const SMALL = { ...CPU_SETTING, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 };

const sorted = (values: number[]) => values.toSorted((a, b) => a - b);
const at = (values: number[], share: number) => sorted(values)[Math.trunc(share * (values.length - 1))];

/**
 * Starts processes that compute until the result is disposed of. They also end at a time limit, in case this process
 * dies first.
 */
async function loops(count: number, seconds: number): Promise<AsyncDisposable> {
  const code = `console.log(); for (const end = Date.now() + ${2000 * seconds + 30_000}; Date.now() < end;);`;
  const children = Array.from(
    { length: count },
    () => new Deno.Command(Deno.execPath(), { args: ["eval", "--no-lock", code], stdout: "piped" }).spawn(),
  );
  const end = async () => {
    for (const child of children) child.kill("SIGKILL");
    for (const child of children) await Promise.all([child.status, child.stdout.cancel()]);
  };
  for (const { stdout } of children) {
    const reader = stdout.getReader();
    await reader.read();
    reader.releaseLock();
  }
  return { [Symbol.asyncDispose]: end };
}

/**
 * Runs the benchmark.
 *
 * @param note prints a line about its progress
 */
export async function benchBusy(
  args: string[],
  print: (line: string) => void,
  note: (line: string) => void = console.error,
): Promise<number> {
  const values = benchValues(flags, { task: "bench:busy", args, print });
  if (!values) return 0;
  const { small, threads, rounds, seconds } = values, config = small ? SMALL : CPU_SETTING;
  const device = await createDevice("cpu", { threads }), generator = new RandomGenerator(1337);
  const tokens = Int32Array.from({ length: 10_000 }, () => generator.randint(config.vocabSize));
  const options = { batchSize: 12, gradientAccumulationSteps: 1, maxIters: 1e9, evalInterval: 1e9, evalIters: 1 };
  const trainer = new Trainer(new GPT(config, { device, generator }), { train: tokens, val: tokens }, options);
  const events = trainer.run();
  const steps = async (): Promise<number[]> => {
    const times: number[] = [], begin = performance.now();
    while (times.length < 3 || performance.now() - begin < 1000 * seconds) {
      const { value } = await events.next();
      if (value?.kind === "step") times.push(value.ms);
    }
    return times;
  };
  await steps(); // kernels compile
  const alone: number[] = [], busy: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    note(`round ${round} of ${rounds}`);
    alone.push(...await steps());
    await using _ = await loops(values.loops, seconds);
    busy.push(...await steps());
  }
  trainer.dispose();
  device.close();
  print(`| ${threads} threads, ms a step | median | 9 of 10 | slowest |`);
  print("| --- | --- | --- | --- |");
  for (const [what, times] of Object.entries({ "alone": alone, [`beside ${values.loops} endless loops`]: busy })) {
    print(`| ${[what, ...[0.5, 0.9, 1].map((share) => at(times, share).toPrecision(3))].join(" | ")} |`);
  }
  print(`\nratio of medians: ${(at(busy, 0.5) / at(alone, 0.5)).toFixed(2)}`);
  return 0;
}

if (import.meta.main) await runCommand((args) => benchBusy(args, console.log));
