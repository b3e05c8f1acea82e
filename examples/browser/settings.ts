/** The settings form: the sizes that it offers, and the run that it describes. */
import { grammarCorpus, grammarEntropy } from "../../data/grammar/grammar.ts";
import type { DeviceChoice, SavedRequest, StartRequest } from "./messages.ts";

/** Number fields of the form, by name. */
type Numbers = Record<
  "nLayer" | "nHead" | "nEmbd" | "blockSize" | "batchSize" | "learningRate" | "maxIters" | "evalInterval",
  number
>;

/** The sizes on offer. Smaller models train well at higher learning rates. */
const SIZES: Record<string, Numbers> = {
  "tiny, for a first look": {
    nLayer: 2,
    nHead: 2,
    nEmbd: 48,
    blockSize: 32,
    batchSize: 16,
    learningRate: 4e-3,
    maxIters: 2000,
    evalInterval: 100,
  },
  "small, writes whole sentences": {
    nLayer: 3,
    nHead: 4,
    nEmbd: 96,
    blockSize: 64,
    batchSize: 12,
    learningRate: 2e-3,
    maxIters: 2000,
    evalInterval: 100,
  },
  "nanoGPT's setting for a laptop": {
    nLayer: 4,
    nHead: 4,
    nEmbd: 128,
    blockSize: 64,
    batchSize: 12,
    learningRate: 1e-3,
    maxIters: 2000,
    evalInterval: 250,
  },
};

const FIELDS = Object.keys(Object.values(SIZES)[0]) as (keyof Numbers)[];

/** Number of characters that the grammar generates. */
const CHARACTERS = 500_000;
let corpus: string | undefined;

/** The text to train on, and its entropy if it is known. */
export function textOf(form: FormData): { text: string; entropy?: number } {
  if (form.get("source") === "own") return { text: String(form.get("text")).replaceAll("\r\n", "\n") };
  return { text: corpus ??= grammarCorpus({ characters: CHARACTERS }), entropy: grammarEntropy };
}

/**
 * Decodes a chosen file, without a byte-order mark.
 *
 * @throws {Error} if the file is not UTF-8, with a message for the page
 */
export function decodeFile(bytes: Uint8Array<ArrayBuffer>, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${name} is not UTF-8 text; save it as UTF-8 and choose it again.`);
  }
}

/** Names of files with rows; other files are texts. */
const ROWS = /\.(jsonl|ndjson|json|csv)$/i;
/** Default settings for fine-tuning. The learning rate suits an adapter; training all weights needs a lower one. */
const TUNING = { batchSize: 4, learningRate: 1e-3, maxIters: 100, evalInterval: 20 };

export function requestOf(form: FormData): StartRequest {
  const number = Object.fromEntries(FIELDS.map((name) => [name, Number(form.get(name))])) as Numbers;
  const { nLayer, nHead, nEmbd, blockSize, batchSize, learningRate, maxIters, evalInterval } = number;
  const { text, entropy } = textOf(form), isTuned = form.get("origin") === "disk";
  const file = form.get("file"), path = form.get("source") === "own" && file instanceof File ? file.name : "";
  return {
    kind: "start",
    device: form.get("device") as DeviceChoice,
    text,
    seed: 1337,
    ...isTuned
      ? {
        tuned: { context: Number(form.get("context")), rank: Number(form.get("rank")) },
        ...ROWS.test(path) && { rows: { path, file: new Blob([text]) } },
      }
      : { model: { nLayer, nHead, nEmbd, blockSize, dropout: 0, bias: false }, entropy },
    training: {
      batchSize,
      gradientAccumulationSteps: 1,
      maxIters,
      evalInterval,
      evalIters: 5,
      learningRate,
      minLr: learningRate / 10,
      warmupIters: Math.min(50, Math.ceil(maxIters / 10)),
      lrDecayIters: maxIters,
      // The squared gradients of few tokens are noisy, so average them over about a hundred updates.
      beta2: 0.99,
      ...isTuned && { finalEvaluation: true },
    },
    sampleLength: isTuned ? 60 : 240,
  };
}

/** Shows the settings of a saved run in the form. */
export function adoptRequest(form: HTMLFormElement, { model, tuned, training, device }: SavedRequest): void {
  const origin = tuned ? "disk" : "new",
    choice = form.querySelector<HTMLInputElement>(`[name=origin][value=${origin}]`)!;
  choice.checked = true;
  choice.dispatchEvent(new Event("change"));
  for (const [name, value] of Object.entries({ ...model, ...tuned, ...training, device })) {
    const field = form.elements.namedItem(name);
    if (field instanceof HTMLInputElement || field instanceof HTMLSelectElement) field.value = String(value);
  }
}

/** Fills in the form, and updates fields that depend on each other. */
export function bindSettings(form: HTMLFormElement): void {
  const field = <E extends HTMLElement = HTMLInputElement>(name: string) =>
    form.elements.namedItem(name) as unknown as E;
  const size = field<HTMLSelectElement>("size"), text = field<HTMLTextAreaElement>("text"), file = field("file");
  const excerpt = document.getElementById("excerpt")!, own = document.getElementById("own")!;

  const part = (id: string) => document.getElementById(id)!;
  const adopt = () => {
    const isTuned = new FormData(form).get("origin") === "disk";
    for (const [name, value] of Object.entries({ ...SIZES[size.value], ...isTuned && TUNING })) {
      field(name).value = String(value);
    }
    [part("new").hidden, part("disk").hidden] = [isTuned, !isTuned];
  };
  const check = () => {
    const fits = Number(field("nEmbd").value) % Number(field("nHead").value) === 0;
    field("nEmbd").setCustomValidity(fits ? "" : "The width must be a multiple of the number of heads.");
    const data = new FormData(form), isOwn = data.get("source") === "own";
    own.hidden = !isOwn;
    text.required = isOwn;
    const begin = textOf(data).text.slice(0, 180);
    excerpt.textContent = begin && `${begin}…`;
  };
  size.append(...Object.keys(SIZES).map((name) => new Option(name)));
  size.addEventListener("change", adopt);
  for (const choice of form.querySelectorAll("[name=origin]")) choice.addEventListener("change", adopt);
  file.addEventListener("change", async () => {
    const [chosen] = file.files ?? [];
    file.setCustomValidity("");
    try {
      if (chosen) text.value = decodeFile(new Uint8Array(await chosen.arrayBuffer()), chosen.name);
    } catch (error) {
      text.value = file.value = "";
      file.setCustomValidity((error as Error).message);
      file.reportValidity();
      file.setCustomValidity(""); // the user may type a text instead
    }
    check();
  });
  form.addEventListener("input", check);
  adopt();
  check();
}
