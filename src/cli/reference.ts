/**
 * The reference model, to which a policy's KL is measured: the policy without its adapter, or a second, frozen model.
 */
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

/** The reference of a run. */
export interface RunReference {
  /** The reference model; or a function that returns the adapter, without which the model is the reference. */
  readonly reference: GPT | (() => Lora);
  /** Its entry in run.json; undefined if the reference is the policy without its adapter. */
  readonly named?: RunBase;
}

/**
 * Loads the reference: the model that `--ref_model` names, or else `--init_from`. A resumed run needs the weights with
 * which it began.
 *
 * @throws {ConfigError} if `--ref_model` is given although an adapter is trained, or if its model has another
 *   vocabulary
 * @throws {CheckpointError} if the model cannot be read, or has changed since the run began
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
    if (!ref_model) return { reference: () => adaptersOf(model).at(-1)! }; // a function, because the adapter is put on later
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
      `--ref_model=${ref_model}: its tokenizer has ${known} tokens; expected the policy's ${tokenizer.vocabSize}`,
    );
  }
  if (ref_model && !template) checkTokenizer(`--ref_model=${ref_model}`, loaded.tokenizer, tokenizer);
  reference.freeze().resizeTokenEmbeddings(model.config.vocabSize, { known });
  return { reference: reference.eval(), named };
}
