/**
 * Draws docs/shakespeare_char_3m.svg: validation losses of two runs of `config/shakespeare_char_3m.ts`, ours and PyTorch's.
 *
 * ```sh
 * deno task train:native config/shakespeare_char_3m.ts
 * python3 bench/pytorch_train.py --input TEXT --n_embd=256 --block_size=128 --batch_size=32 --dropout=0.2 --max_iters=5000 \
 *   --lr_decay_iters=5000 --eval_iters=50 > pytorch.jsonl
 * deno run --allow-read --allow-write=docs scripts/losses_beside_pytorch.ts out-shakespeare-char-3m/metrics.jsonl pytorch.jsonl
 * ```
 *
 * @module
 */
import { circle, curve, END, line, linearTicks, MIDDLE, type Point, svgFile, text } from "../src/page/plot.ts";

const FILE = new URL("../docs/shakespeare_char_3m.svg", import.meta.url);
const WIDTH = 640, HEIGHT = 360, LEFT = 46, RIGHT = WIDTH - 24, TOP = 26, BOTTOM = HEIGHT - 40;
const COLORS = ["#2f7fd6", "#d9722e"];

/** Validation losses by iteration, from lines of JSON. */
async function validationLosses(path: string): Promise<Point[]> {
  const lines = (await Deno.readTextFile(path)).trim().split("\n");
  const events = lines.map((line): { iter: number; val_loss?: number } => JSON.parse(line));
  return events.flatMap(({ iter, val_loss }) => val_loss === undefined ? [] : [[iter, val_loss] as const]);
}

/** Draws curves on linear axes, without the point at iteration 0, which would flatten the rest of the curves. */
function draw(runs: readonly { readonly name: string; readonly losses: readonly Point[] }[]): string {
  const curves = runs.map(({ losses }) => losses.filter(([iter]) => iter > 0)), points = curves.flat();
  const losses = points.map(([, loss]) => loss), last = Math.max(...points.map(([iter]) => iter));
  const steps = linearTicks(Math.min(...losses), Math.max(...losses), 5), [low, high] = [steps[0], steps.at(-1)!];
  const at = ([iter, loss]: Point): Point => [
    LEFT + iter / last * (RIGHT - LEFT),
    BOTTOM - (loss - low) / (high - low) * (BOTTOM - TOP),
  ];
  const parts = steps.flatMap((loss) => {
    const [from, to] = [at([0, loss]), at([last, loss])];
    return [line(from, to, "grid"), text(LEFT - 8, from[1] + 4, loss.toFixed(1), END)];
  });
  for (const iter of linearTicks(0, last, 5)) {
    parts.push(text(at([iter, 0])[0], BOTTOM + 18, iter.toLocaleString("en"), MIDDLE));
  }
  parts.push(text(RIGHT, HEIGHT - 4, "iteration", END), text(0, 12, "nats per token"));
  runs.forEach(({ name }, i) => {
    const color = COLORS[i], y = TOP + 14 + 18 * i;
    parts.push(curve(curves[i].map(at), { fill: "none", stroke: color, "stroke-width": 1.5 }));
    for (const point of curves[i]) parts.push(circle(at(point), 2.5, { fill: color }));
    parts.push(circle([RIGHT - 180, y], 4, { fill: color }), text(RIGHT - 170, y + 4, name));
  });
  const description = `Validation loss by iteration: ${runs.map(({ name }) => name).join("; ")}`;
  return svgFile([WIDTH, HEIGHT], { description }, parts);
}

if (import.meta.main) {
  const names = ["nanogpt-ts", "PyTorch"];
  if (Deno.args.length < 2) throw new Error("Name both files of losses: losses_beside_pytorch.ts OURS PYTORCH");
  const runs = await Promise.all(names.map(async (name, i) => {
    const losses = await validationLosses(Deno.args[i]), lowest = Math.min(...losses.map(([, loss]) => loss));
    return { name: `${name}, lowest ${lowest.toFixed(3)}`, losses };
  }));
  await Deno.writeTextFile(FILE, draw(runs));
}
