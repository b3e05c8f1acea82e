/** Exports a model as a zip archive. */
import { saveHuggingFace } from "@nanogpt/ts/checkpoint";
import { loadPretrained } from "@nanogpt/ts/pretrained";
import { adaptersOf, type Lora, saveAdapter } from "@nanogpt/ts/finetune";
import type { GPT } from "@nanogpt/ts";
import type { Tokenizer } from "@nanogpt/ts/tokenizer";
import { system } from "../../src/files/system.ts";
import { zipParts } from "../../src/files/zip_writer.ts";
import type { ExportFormat } from "./messages.ts";
import { filesIn, remove } from "./storage.ts";

interface Exported {
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  /** Path of the loaded model. */
  readonly base?: string;
  readonly lora?: Lora;
}

/** Names of the folders in the archives. */
const NAMES: Record<ExportFormat, string> = { hugging_face: "model", adapter: "adapter", run: "run" };

export async function exportArchive(format: ExportFormat, of: Exported): Promise<{ name: string; archive: Blob }> {
  const name = NAMES[format], folder = format === "run" ? "saved/run" : `export/${name}`;
  try {
    if (format === "hugging_face") await toHuggingFace(folder, of);
    else if (format === "adapter") await saveAdapter(folder, of.lora!, { base: of.base?.split("/").at(-1) });
    const paths = await Array.fromAsync(filesIn(folder)), written = paths.filter((path) => !/\.(lock|new)$/.test(path));
    const records = written.map((path) => ({
      name: name + path.slice(folder.length),
      data: () => system.readFile(path),
    }));
    const parts: Blob[] = [];
    for await (const bytes of zipParts(records)) parts.push(new Blob([bytes as Uint8Array<ArrayBuffer>]));
    return { name: `${name}.zip`, archive: new Blob(parts, { type: "application/zip" }) };
  } finally {
    if (format !== "run") await remove(folder);
  }
}

/** Saves a Hugging Face folder. An adapter is merged into a copy of the model, so that the run is not changed. */
async function toHuggingFace(folder: string, { model, tokenizer, base, lora }: Exported): Promise<void> {
  if (!lora) return await saveHuggingFace(model, folder, { tokenizer });
  const adapter = "export/merged";
  await saveAdapter(adapter, lora);
  let copy: GPT | undefined;
  try {
    copy = (await loadPretrained(base!, { device: model.device, adapter })).model;
    for (const own of adaptersOf(copy)) own.merge();
    await saveHuggingFace(copy, folder, { tokenizer });
  } finally {
    copy?.dispose();
    await remove(adapter);
  }
}
