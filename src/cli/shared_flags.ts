/** Flags that several commands share. */
import type { HubProgress } from "../pretrained/hub.ts";
import { ConfigError } from "../errors.ts";
import { taskCommand } from "./command.ts";
import { choice, int, text, toggle } from "./flags.ts";
import type { EncodeOptions } from "../tokenizer/tokenizer.ts";
import type { Progress } from "./progress.ts";

export const deviceFlags = {
  device: choice(
    ["auto", "cpu", "reference", "webgpu", "webgpu:software", "webgpu:dawn", "webgpu:dawn:software"],
    "where to compute: auto (the same as cpu), cpu, webgpu, webgpu:dawn, or reference (plain TypeScript in float64, slow)",
    (value) => {
      if (/^(cuda|mps)/.test(value)) return "this is a device of PyTorch; use auto, cpu or webgpu";
    },
  ),
  threads: int(0, "threads of the CPU device; 0: one for each core", { min: 0, max: 256 }),
  profile: toggle("print at the end how long each kernel took"),
};

export const nativeFlag = {
  native: toggle("compute matrix products in machine code, on Linux with AVX-512; needs Deno's permission --allow-ffi"),
};

/**
 * Checks that the process may load Dawn if the device needs it. No sandbox restricts native code such as Dawn, so only
 * the tasks whose names end in `:dawn` have the permission to load it.
 *
 * @param task the task's name without `:dawn`
 * @throws {ConfigError} if the device needs Dawn and this process has no permission to load native code
 */
export function checkPermission(device: string, task: string): void {
  if (!device.startsWith("webgpu:dawn") || Deno.permissions.querySync({ name: "ffi" }).state === "granted") return;
  throw new ConfigError(
    `--device=${device}: Dawn is native code, which ${task} may load only with Deno's permission --allow-ffi\n` +
      `Type this instead, with the same flags: ${taskCommand(`${task}:dawn`, [])}`,
  );
}

/** What `--init_from` and similar flags take as the name of a model, for `--help`. */
export const PRETRAINED = "gpt2, gpt2-medium, …, or the path of a run, a Hugging Face folder, a ckpt.pt or a GGUF file";

/** The flags that name a model to generate with or to evaluate. */
export const modelFlags = {
  init_from: text("resume", `the model: resume is the run in out_dir; or ${PRETRAINED}`),
  out_dir: text("out", "the run folder, used with --init_from=resume"),
  adapter: text("", "a folder with a LoRA adapter for the model, in PEFT's format (adapter_config.json)"),
  checkpoint: choice(
    ["best", "last"],
    "which checkpoint of a run: best has the lowest validation loss, last is the latest",
  ),
  weights: choice(
    ["f32", "bf16", "q8_0"],
    "how weight matrices are stored: f32; bf16 (half the memory) and q8_0 (a quarter) round them and are faster",
  ),
};

/** Settings of PyTorch in nanoGPT's commands and config files. Only the values that describe this library are valid. */
export const torchFlags = {
  compile: choice(
    [false],
    "only False is valid: this program has no torch.compile",
    () => "this program has no torch.compile; leave it False",
  ),
  dtype: choice(
    ["float32"],
    "only float32 is valid: everything is computed in float32",
    () => "everything is computed in float32",
  ),
};

/** Prints a line for each downloaded file, and shows the progress of the current one. */
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
    "gpt2, cl100k_base, o200k_base, or a folder with a tokenizer: a Hugging Face model, a run, or a dataset",
  ),
  special_tokens: choice(
    ["refuse", "allow", "text"],
    "special tokens such as <|endoftext|> in a text: refuse stops with an error, allow encodes each as one token, text encodes them like any other text",
  ),
};

/** Converts a value of `--special_tokens` to options of `encode`. */
export function encodeOptions(special: string): EncodeOptions {
  if (special === "allow") return { allowedSpecial: "all" };
  return special === "text" ? { disallowedSpecial: new Set() } : {};
}
