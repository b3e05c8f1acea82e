/** run.json: what a run was asked for, its model's sizes, and which of its checkpoints count. */
import { CheckpointError } from "../errors.ts";
import { isCheckpointName } from "./checkpoint_folder.ts";
import { isObject, readJson } from "../files/files.ts";

/** Of the file's layout: a version that writes another must not be read by this one. */
export const FORMAT = 1;

export interface RunJson {
  readonly flags: Readonly<Record<string, unknown>>;
  readonly model: Readonly<Record<string, unknown>>;
  /** The model that the run's adapter stands on. */
  readonly base?: RunBase;
  /** The model that the run's policy is compared with. */
  readonly reference?: RunBase;
  /** Of the data that the run trains on; none in folders of version 0.1.0. */
  readonly data?: unknown;
  readonly last?: string;
  readonly best?: string;
}

/** What a run's adapter stands on, or what its policy is compared with: a model that `loadPretrained` takes. */
export interface RunBase {
  /** The model's name, or its path. */ readonly name: string;
  /** Tells its weights from others. */ readonly identity: { readonly bytes: number; readonly checksum: string };
}

const isBase = (value: unknown): value is RunBase =>
  isObject(value) && typeof value.name === "string" && isObject(value.identity) &&
  Number.isSafeInteger(value.identity.bytes) && typeof value.identity.checksum === "string";

/** @throws {CheckpointError} when the file cannot be read, is of another format, or damaged */
export async function readRunJson(path: string): Promise<RunJson> {
  const { format, flags, model, base, reference, data, last, best } = await readJson(path);
  if (format !== FORMAT) throw new CheckpointError(`${path} has format ${format}, and this version reads ${FORMAT}`);
  if (!isObject(flags) || !isObject(model)) {
    throw new CheckpointError(`${path} is damaged: no flags or no model in it`);
  }
  const named = (value: unknown, what: string): RunBase | undefined => {
    if (value === undefined || isBase(value)) return value;
    throw new CheckpointError(`${path} is damaged: its ${what} is not a name with an identity of bytes and a checksum`);
  };
  const name = (value: unknown): string | undefined => {
    if (value === undefined || isCheckpointName(value)) return value;
    throw new CheckpointError(`${path} is damaged: ${JSON.stringify(value)} is not the name of a checkpoint`);
  };
  return {
    flags,
    model,
    base: named(base, "base"),
    reference: named(reference, "reference"),
    data,
    last: name(last),
    best: name(best),
  };
}
