/** The model that a policy's KL is measured to: the policy with its adapter off, or a frozen model beside it. */
import type { RunFolder } from "../checkpoint/run_folder.ts";
import type { RunBase } from "../checkpoint/run_json.ts";
import { ConfigError } from "../errors.ts";
import { adaptersOf, type Lora } from "../finetune/lora.ts";
import { checkTokenizer } from "../finetune/rewards.ts";
import type { GPT } from "../gpt.ts";
import { checkIdentity, loadPretrained } from "../pretrained/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { baseOf } from "./lora_flags.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import type { Progress } from "./progress.ts";
import { reportDownload } from "./shared_flags.ts";
import { absolute } from "./train_command.ts";

/** What a run has for its reference. */
export interface RunReference {
  readonly reference: GPT | (() => Lora);
  /** What run.json says of it; nothing of the policy itself. */
  readonly named?: RunBase;
}

/**
 * Loads it: what `--ref_model` names, or `--init_from`; a run that goes on has to find the weights that it began with.
 *
 * @throws {ConfigError} when `--ref_model` stands beside an adapter, which is its own reference, or has another vocabulary
 * @throws {CheckpointError} when it cannot be read, or has changed since the run began
 */
export async function loadReference(
  { values, run, model, tokenizer, progress }: {
    readonly values: Pick<FinetuneValues, "ref_model" | "init_from" | "lora_rank" | "template">;
    readonly run?: RunFolder;
    readonly model: GPT;
    readonly tokenizer: Tokenizer;
    readonly progress: Progress;
  },
): Promise<RunReference> {
  const { ref_model, init_from, lora_rank, template } = values;
  if (lora_rank > 0) {
    if (!ref_model) return { reference: () => adaptersOf(model).at(-1)! }; // the adapter is put on later
    throw new ConfigError(
      `--ref_model=${ref_model}: the reference of an adapter is the model without it; leave the flag out`,
    );
  }
  const before = run?.description.reference, named = before ?? await baseOf(ref_model || init_from, absolute);
  if (before) await checkIdentity(before, `${run!.path} measures KL to`);
  const onProgress = reportDownload(progress), onNote = (line: string) => progress.line(line);
  const loaded = await loadPretrained(named.name, { device: model.device, inference: false, onNote, onProgress });
  const { model: reference, tokenizer: { vocabSize: known } } = loaded;
  if (ref_model && !template && known > tokenizer.vocabSize) {
    throw new ConfigError(
      `--ref_model=${ref_model}: its tokenizer has ${known} tokens, and the policy's ${tokenizer.vocabSize}; expected the same`,
    );
  }
  if (ref_model && !template) checkTokenizer(`--ref_model=${ref_model}`, loaded.tokenizer, tokenizer);
  reference.freeze().resizeTokenEmbeddings(model.config.vocabSize, { known });
  return { reference: reference.eval(), named };
}
