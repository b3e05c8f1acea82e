/** Flags that commands share, and what they refuse with a reason. */
import type { HubProgress } from "../pretrained/hub.ts";
import { ConfigError } from "../errors.ts";
import { taskCommand } from "./command.ts";
import { choice, int, text, toggle } from "./flags.ts";
import type { EncodeOptions } from "../tokenizer/tokenizer.ts";
import type { Progress } from "./progress.ts";

export const deviceFlags = {
  device: choice(
    ["auto", "cpu", "reference", "webgpu", "webgpu:software", "webgpu:dawn", "webgpu:dawn:software"],
    "auto (the same as cpu), cpu, webgpu, webgpu:dawn, or reference: plain TypeScript in float64, slow",
    (value) => {
      if (/^(cuda|mps)/.test(value)) return "this is one of PyTorch's devices; use auto, cpu or webgpu";
    },
  ),
  threads: int(0, "threads of the CPU device; 0 is one for each core", { min: 0, max: 256 }),
  profile: toggle("print at the end how long each kernel took"),
};

export const nativeFlag = {
  native: toggle("matrix products in machine code, on Linux with AVX-512; needs --allow-ffi, as train:native has it"),
};

/**
 * Dawn is native code, and only the tasks with `:dawn` behind their names may load any: it could do anything.
 *
 * @param task without that
 * @throws {ConfigError} when the device is Dawn's and this process may not load it
 */
export function checkPermission(device: string, task: string): void {
  if (!device.startsWith("webgpu:dawn") || Deno.permissions.querySync({ name: "ffi" }).state === "granted") return;
  throw new ConfigError(
    `--device=${device}: Dawn is native code, and deno task ${task} has no permission to load any (--allow-ffi)\n` +
      `Type this instead, with the same flags: ${taskCommand(`${task}:dawn`, [])}`,
  );
}

/** What `init_from` names besides runs, in a flag's help. */
export const PRETRAINED = "gpt2, gpt2-medium, …, or the path of a run, a Hugging Face folder, a ckpt.pt or a GGUF file";

/** Which model a text is written or judged with. */
export const modelFlags = {
  init_from: text("resume", `resume: the run in out_dir; or ${PRETRAINED}`),
  out_dir: text("out", "the run folder with the model"),
  adapter: text("", "a folder with a LoRA adapter for the model: adapter_config.json, as PEFT has it"),
  checkpoint: choice(["best", "last"], "of a run: the one with the lowest validation loss, or the last"),
  weights: choice(
    ["f32", "bf16", "q8_0"],
    "how matrices are stored: f32; or rounded and faster: bf16 in half the memory, q8_0 in a quarter",
  ),
};

/** Settings of PyTorch that nanoGPT's commands name: the values that describe what happens here are taken. */
export const torchFlags = {
  compile: choice(
    [false],
    "only False: there is no torch.compile here",
    () => "there is no torch.compile here; leave it False",
  ),
  dtype: choice(
    ["float32"],
    "only float32: everything is computed in it",
    () => "everything is computed in float32 here",
  ),
};

/** A line for each file of GPT-2 that is downloaded, and how far it is. */
export function reportDownload(progress: Progress): (of: HubProgress) => void {
  return ({ file, bytes, total }) => {
    const mib = (n: number) => `${(n / 2 ** 20).toFixed(1)} MiB`;
    if (bytes === total) progress.line(`downloaded ${file}, ${mib(bytes)}`);
    else progress.status(() => `${file} ${mib(bytes)}${total === undefined ? "" : ` of ${mib(total)}`}`);
  };
}

export const tokenizerFlags = {
  tokenizer: text(
    "gpt2",
    "gpt2, cl100k_base, o200k_base, or a folder: a Hugging Face model's, a run's, or one with tokens",
  ),
  special_tokens: choice(
    ["refuse", "allow", "text"],
    "what <|endoftext|> and its like in a text are: refuse; allow: special tokens; text: ordinary letters",
  ),
};

/** What `--special_tokens` means to `encode`. */
export function encodeOptions(special: string): EncodeOptions {
  if (special === "allow") return { allowedSpecial: "all" };
  return special === "text" ? { disallowedSpecial: new Set() } : {};
}
