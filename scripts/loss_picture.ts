/**
 * Draws the README's picture, docs/loss.svg. It trains nanoGPT's CPU setting on tiny Shakespeare as `deno task train`
 * does, and generates a few lines of text at some of the evaluations. The picture shows the loss curve and these lines.
 *
 * ```sh
 * DENO_V8_FLAGS=$(deno run --allow-env=NANOGPT_WIDE src/cli/v8_flags.ts) deno run --allow-read --allow-write=docs scripts/loss_picture.ts TEXT
 * ```
 *
 * TEXT is the path of tiny Shakespeare. Every run gives the same picture, because the seed determines losses and
 * samples.
 *
 * @module
 */
import { createDevice, generate, GPT, RandomGenerator, Trainer } from "@nanogpt/ts";
import { readText, splitTokens } from "@nanogpt/ts/data";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import config from "../config/shakespeare_char_cpu.ts";
import { circle, type Losses, plotLosses, type Point, svgFile, text } from "../src/page/plot.ts";

const FILE = new URL("../docs/loss.svg", import.meta.url);
/** Iterations at which lines are generated. */
const SAMPLED = [0, 250, 1000, 2000];
const LINES = 4, COLUMNS = 52, SEED = 1337;

interface Sample {
  readonly iter: number;
  readonly valLoss: number;
  readonly lines: readonly string[];
}

/** Generates a text, and returns its first lines, shortened to the picture's width. */
async function write(model: GPT, tokenizer: CharacterTokenizer): Promise<string[]> {
  const tokens: number[] = [], options = { maxNewTokens: LINES * COLUMNS, temperature: 0.8, topK: 200, seed: SEED };
  for await (const token of generate(model, tokenizer.encode("\n"), options)) tokens.push(token);
  const lines = tokenizer.decode(tokens).split("\n").filter((line) => line.trim() !== "");
  return lines.slice(0, LINES).map((line) => line.slice(0, COLUMNS));
}

/** Trains for all iterations of the setting. */
async function train(input: string): Promise<{ losses: Losses; samples: Sample[] }> {
  const words = await readText(input), tokenizer = CharacterTokenizer.fromText(words);
  const sizes = {
    blockSize: config.block_size!,
    nLayer: config.n_layer!,
    nHead: config.n_head!,
    nEmbd: config.n_embd!,
  };
  const generator = new RandomGenerator(SEED);
  using device = await createDevice("cpu");
  const model = new GPT({ ...sizes, vocabSize: tokenizer.vocabSize, dropout: 0, bias: false }, { device, generator });
  using trainer = new Trainer(model, splitTokens(words, tokenizer, sizes), {
    generator,
    batchSize: config.batch_size!,
    gradientAccumulationSteps: 1,
    maxIters: config.max_iters!,
    evalInterval: config.eval_interval!,
    evalIters: config.eval_iters!,
    learningRate: config.learning_rate!,
    minLr: config.min_lr!,
    lrDecayIters: config.lr_decay_iters!,
    warmupIters: config.warmup_iters!,
    beta2: config.beta2!,
  });
  const batches: Point[] = [], heldOut: Point[] = [], samples: Sample[] = [];
  for await (const event of trainer.run()) {
    if (event.kind === "step") batches.push([event.iter, event.loss]);
    if (event.kind !== "evaluation") continue;
    const { iter, valLoss } = event;
    heldOut.push([iter, valLoss]);
    console.log(`iteration ${iter}: validation loss ${valLoss.toFixed(4)}`);
    if (SAMPLED.includes(iter)) samples.push({ iter, valLoss, lines: await write(model, tokenizer) });
  }
  return { losses: { batches, heldOut, entropy: undefined, last: config.max_iters! }, samples };
}

const WIDTH = 900, HEIGHT = 390, PLOT = 460, LINE = 18;
const STYLE = `
.written { font: 12px ui-monospace, Menlo, Consolas, monospace; white-space: pre; } polyline { fill: none; stroke-width: 1.5; }
polyline.train { stroke: #2f7fd6; } polyline.val { stroke: #d9722e; } circle.train { fill: #2f7fd6; } circle.val { fill: #d9722e; }`;

function draw(losses: Losses, samples: readonly Sample[]): string {
  const legend = [["train", "training text"], ["val", "held-out text"]].flatMap(([kind, words], i) => [
    circle([PLOT - 120, 52 + i * LINE], 4, { class: kind }),
    text(PLOT - 110, 56 + i * LINE, words),
  ]);
  const written = samples.flatMap(({ iter, valLoss, lines }, i) => {
    const top = 12 + i * (HEIGHT / samples.length), x = PLOT + 36;
    const title = `iteration ${iter.toLocaleString("en")}: loss ${valLoss.toFixed(2)} on held-out text`;
    const put = (line: string, j: number) => text(x, top + (j + 1) * LINE, line, { class: "written" });
    return [text(x, top, title, { class: "title" }), ...lines.map(put)];
  });
  const description = `Loss by iteration on tiny Shakespeare, and what the model writes: ${
    samples.map(({ iter, valLoss }) => `${valLoss.toFixed(2)} at iteration ${iter}`).join(", ")
  }`;
  const curves = plotLosses(losses, { width: PLOT, height: HEIGHT });
  return svgFile([WIDTH, HEIGHT], { description, style: STYLE }, [curves, ...legend, ...written]);
}

if (import.meta.main) {
  const [input] = Deno.args;
  if (!input) throw new Error("Name tiny Shakespeare's file: loss_picture.ts TEXT");
  const { losses, samples } = await train(input);
  await Deno.writeTextFile(FILE, draw(losses, samples));
}
