/**
 * Compares the losses of this library's train command with PyTorch's losses (bench/pytorch_train.py), for the same
 * seed, text and flags.
 */
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import { loadText } from "../src/data/load_text.ts";

const path = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);

export interface LossesOptions {
  /** Path of a text file. Default: tiny Shakespeare, downloaded once. */
  readonly input?: string;
  readonly threads: number;
  readonly iterations: number;
  readonly note: (line: string) => void;
}

/**
 * Returns a line for each of V8's modes, with the largest difference between this library's losses and PyTorch's. If
 * they cannot be compared, returns one line with the reason.
 */
export async function lossDifferences({ input, threads, iterations, note }: LossesOptions): Promise<string[]> {
  const folder = await Deno.makeTempDir({ prefix: "losses_" });
  try {
    const { text, source } = await loadText({ input, onNote: note });
    await Deno.writeTextFile(`${folder}/text.txt`, text);
    const sizes = [`--threads=${threads}`, `--max_iters=${iterations}`, "--eval_interval=1000000", "--eval_iters=1"];
    const flags = [`--input=${folder}/text.txt`, ...sizes];
    note("losses: PyTorch");
    const theirs = losses(await output("python3", [path("pytorch_train.py"), ...flags]));
    const lines: string[] = [];
    for (const mode of wideAvailable() ? ["wide", "narrow"] : ["narrow"]) {
      note(`losses: ours, ${mode}`);
      const run = ["run", "--no-prompt", "--allow-read", "--allow-write", "--allow-env", path("../src/cli/train.ts")];
      const args = [...run, `--out_dir=${folder}/${mode}`, "--log_interval=1", ...flags];
      await output(Deno.execPath(), args, { DENO_V8_FLAGS: v8Flags(mode === "wide") });
      const ours = losses(await Deno.readTextFile(`${folder}/${mode}/metrics.jsonl`));
      if (ours.length !== theirs.length) throw new Error(`${ours.length} of our losses, ${theirs.length} of PyTorch's`);
      const most = Math.max(...ours.map((loss, i) => Math.abs(loss - theirs[i])));
      lines.push(
        `${source}, nanoGPT's CPU setting: ours, ${mode}, and PyTorch's losses of ${ours.length} iterations ` +
          `differ by ${most.toExponential(1)} at most`,
      );
    }
    return lines;
  } catch (error) {
    return [`losses are not compared: ${(error as Error).message}`];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The losses in lines of JSON. Lines of evaluations have no field `loss` and are skipped. */
function losses(lines: string): number[] {
  return lines.trim().split("\n").map((line) => JSON.parse(line).loss).filter((loss) => loss !== undefined);
}

async function output(command: string, args: string[], env?: Record<string, string>): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, env }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).trim().split("\n").at(-1));
  return new TextDecoder().decode(stdout);
}
