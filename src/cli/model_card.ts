/**
 * The model card of a Hugging Face folder, its README.md (https://huggingface.co/docs/hub/model-cards): training data,
 * losses and caveats. Its facts come from the model's files; unknown facts are marked as unknown. Only the last part of
 * a path is shown, because the rest can be private.
 */
import { type Metrics, readMetrics } from "../checkpoint/metrics.ts";
import { NanoGPTFile } from "../checkpoint/nanogpt.ts";
import { RunFolder } from "../checkpoint/run_folder.ts";
import { exists, isObject, readBytes } from "../files/files.ts";
import type { GPT } from "../gpt.ts";
import type { FoundModel } from "../pretrained/load.ts";
import { taskCommand } from "./command.ts";
import { count } from "./progress.ts";

/** Facts for the card that are not in the model's files. */
export interface CardOptions {
  /** The folder that the card is for. */ readonly to: string;
  readonly model: GPT;
  /** Which checkpoint of a run. */ readonly checkpoint: "best" | "last" | undefined;
  /** An adapter that was merged into the weights. */ readonly adapter?: string;
  /** The class of transformers for the model, unless it is a language model. */ readonly architecture?: string;
  /** The type of the weights if they are rounded, such as float16. */ readonly rounded?: string;
}

/** A section's lines. */
type Lines = readonly string[];
interface History {
  readonly data: Lines;
  readonly training: Lines;
  readonly losses: Lines;
}

const last = (path: unknown) => String(path).split(/[/\\]/).filter(Boolean).at(-1) ?? "";
/** A value as inline code, in which Markdown has no meaning. */
const code = (value: unknown) => `\`${String(value).replaceAll(/[`\n]/g, " ")}\``;

/**
 * The text of a card.
 *
 * @param source the model's files; if they are a Hugging Face folder with a card, that card is copied
 */
export async function modelCard(source: FoundModel, options: CardOptions): Promise<string> {
  const { to, model, adapter, architecture = "GPT2LMHeadModel", rounded } = options, own = `${source.path}/README.md`;
  if (source.kind === "hugging_face" && !adapter && await exists(own)) {
    return new TextDecoder().decode(await readBytes(own, { limit: 2 ** 22 }));
  }
  const { config } = model, { nLayer, nHead, nEmbd, blockSize, vocabSize } = config, writes = !options.architecture;
  const history = await (HISTORY[source.kind] ?? unknown)(source.path, options);
  const section = (title: string, lines: Lines) => lines.length > 0 ? [`## ${title}`, "", ...lines, ""] : [];
  return [
    ...["---", "library_name: transformers", ...writes ? ["pipeline_tag: text-generation"] : []],
    ...["tags:", "- gpt2", "- nanogpt-ts", "---", ""],
    ...[`# ${last(to).replaceAll(/[^\w .-]/g, " ")}`, ""],
    `A GPT-2 ${writes ? "language model" : "model with a head"}: ${count(model.numParameters())} parameters, ` +
    `${nLayer} layers, ${nHead} heads, width ${nEmbd}, a context of ${count(blockSize)} tokens, ` +
    `${count(vocabSize)} tokens in its vocabulary. The files were written by nanogpt-ts.`,
    "",
    ...section("Data", history.data),
    ...section("Training", [
      ...history.training,
      ...adapter ? [`- An adapter, ${code(last(adapter))}, was merged into the weights.`] : [],
    ]),
    ...section("Losses", history.losses),
    ...section("Caveats", [
      ...writes
        ? [
          "- The model continues a text in the manner of its training data. What it writes can be false or offensive, and can " +
          "repeat the training data word for word.",
        ]
        : [
          "- The model was trained for one task. It gives an answer for any input, also where its training data had nothing similar.",
        ],
      "- Neither the model nor its training data has been checked for bias or for personal data.",
      ...history.losses.length > 0
        ? [
          "- The held-out losses are for text from the same source as the training data; they say nothing about other text.",
        ]
        : [],
      ...rounded
        ? [`- The weights are rounded to ${rounded}, so its losses can differ slightly from the measured ones.`]
        : [],
      "- This card names no licence. Check what the training data allow before you publish the model.",
    ]),
    ...section("Use", [
      "```python",
      `from transformers import ${architecture}`,
      "",
      `model = ${architecture}.from_pretrained("path/to/this/folder")`,
      "```",
      ...writes
        ? ["", "```sh", taskCommand("sample", ["--init_from=path/to/this/folder"], { deno: "deno" }), "```"]
        : [],
    ]),
  ].join("\n");
}

const unknown = (path: string): Promise<History> =>
  Promise.resolve({
    data: [`Unknown: ${code(last(path))}, from which it was converted, does not name its training data.`],
    training: [],
    losses: [],
  });

const HISTORY: Partial<Record<FoundModel["kind"], (path: string, options: CardOptions) => Promise<History>>> = {
  async run(path, { checkpoint }) {
    const run = await RunFolder.open(path), { flags, base } = run.description, { data } = run;
    const { state: { iter } } = await run.checkpoint(checkpoint ?? "best");
    const metrics = await exists(run.metricsPath) ? await readMetrics(run.metricsPath) : [];
    const source = flags.data || flags.input || flags.dataset, begun = flags.init_from;
    const sizes = isObject(data)
      ? Object.entries(data).flatMap(([split, one]) =>
        isObject(one) && Number.isSafeInteger(one.length)
          ? [`${count(Number(one.length))} tokens ${split === "train" ? "to train on" : "held out"}`]
          : []
      )
      : [];
    return {
      data: [
        `${source ? code(last(source)) : "Unknown: the run does not name it"}${
          sizes.length > 0 ? `: ${sizes.join(", ")}` : ""
        }.`,
      ],
      training: [
        `- ${count(Number(iter))} updates${flags.task ? ` of the task ${code(flags.task)}` : ""}.`,
        ...base ? [`- An adapter (LoRA) on ${code(last(base.name))}, merged into the weights.`] : [],
        ...!base && begun && !["scratch", "resume"].includes(String(begun))
          ? [`- Begun with the weights of ${code(last(begun))}.`]
          : [],
        ...NUMBERS.flatMap((name) => flags[name] === undefined ? [] : [`- ${code(name)}: ${flags[name]}`]),
      ],
      losses: lossLines(metrics, Number(iter), ["sft", undefined].includes(flags.task as string | undefined)),
    };
  },
  async nanogpt(path) {
    using file = await NanoGPTFile.open(path);
    const { iter, bestValLoss, flags: { dataset } } = file;
    return {
      data: dataset ? [`${code(dataset)}, nanoGPT's dataset of that name.`] : (await unknown(path)).data,
      training: [`- ${count(iter)} updates, saved in nanoGPT's format.`],
      losses: bestValLoss === null ? [] : [`The lowest held-out loss was ${bestValLoss.toFixed(4)} nats per token.`],
    };
  },
};

/** Flags that the section on training lists. */
const NUMBERS = [
  "batch_size",
  "gradient_accumulation_steps",
  "block_size",
  "learning_rate",
  "weight_decay",
  "dropout",
  "seed",
];

/**
 * A table of two evaluations: the first, and the last up to the checkpoint.
 *
 * @param inNats whether losses are in nats per token
 */
function lossLines(metrics: readonly Metrics[], iter: number, inNats: boolean): Lines {
  const all = metrics.filter((line) => "val_loss" in line),
    rows = all.filter(({ iter: at }, i) => i === 0 || at <= iter);
  if (rows.length === 0) return [];
  const shown = [...new Set([rows[0], rows.at(-1)!])], fixed = (value: number) => value.toFixed(4);
  return [
    `Mean losses over an evaluation's batches, ${inNats ? "in nats per token" : "in the task's own unit"}:`,
    "",
    "| update | training data | held out |",
    "| -----: | ------------: | -------: |",
    ...shown.map(({ iter, train_loss, val_loss }) => `| ${count(iter)} | ${fixed(train_loss)} | ${fixed(val_loss)} |`),
  ];
}
