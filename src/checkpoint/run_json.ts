/** run.json: a run's flags, its model's config, and the names of its last and best checkpoints. */
import { CheckpointError } from "../errors.ts";
import { isCheckpointName } from "./checkpoint_folder.ts";
import { isObject, readJson } from "../files/files.ts";

/** Version of the file's format. A file with another version is rejected. */
export const FORMAT = 1;

export interface RunJson {
  readonly flags: Readonly<Record<string, unknown>>;
  readonly model: Readonly<Record<string, unknown>>;
  /** The base model of the run's adapter. */
  readonly base?: RunBase;
  /** The reference model that the run's policy is compared with. */
  readonly reference?: RunBase;
  /** The trainer's description of the data; missing in folders of version 0.1.0. */
  readonly data?: unknown;
  readonly last?: string;
  readonly best?: string;
}

/** A model that a run refers to: the base of its adapter, or the reference of its policy. */
export interface RunBase {
  /** Name or path of the model, for `loadPretrained`. */ readonly name: string;
  /** Size and checksum of the weights, to detect changes. */ readonly identity: {
    readonly bytes: number;
    readonly checksum: string;
  };
}

const isBase = (value: unknown): value is RunBase =>
  isObject(value) && typeof value.name === "string" && isObject(value.identity) &&
  Number.isSafeInteger(value.identity.bytes) && typeof value.identity.checksum === "string";

/**
 * Reads a run.json.
 * @throws {CheckpointError} when the file cannot be read, has another format version, or is damaged
 */
export async function readRunJson(path: string): Promise<RunJson> {
  const { format, flags, model, base, reference, data, last, best } = await readJson(path);
  if (format !== FORMAT) throw new CheckpointError(`${path} has format ${format}, but this version reads ${FORMAT}`);
  if (!isObject(flags) || !isObject(model)) {
    throw new CheckpointError(`${path} is damaged: it has no flags or no model`);
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
