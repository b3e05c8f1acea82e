/**
 * Opens the weights in a folder that transformers saved: model.safetensors or pytorch_model.bin, or several files
 * (shards) with an index. The weight_map of the index (FILE.index.json) names the shard of each tensor.
 */
import { CheckpointError } from "../errors.ts";
import { exists, isObject, readJson } from "./files.ts";
import { SafetensorsFile, type TensorArray, type WeightsFile } from "./safetensors.ts";
import { TorchFile } from "./torch_file.ts";

type Open = (path: string) => Promise<WeightsFile>;

/** Formats of weights, in order of preference. */
const FORMATS: readonly { readonly name: string; readonly shard: RegExp; readonly open: Open }[] = [
  { name: "model.safetensors", shard: /^[\w-][\w.-]*\.safetensors$/, open: SafetensorsFile.open },
  { name: "pytorch_model.bin", shard: /^[\w-][\w.-]*\.bin$/, open: TorchFile.open },
];

/**
 * Opens the weights of a folder. Shards have the interface of a single file.
 *
 * @throws {CheckpointError} when the folder has no weights, or a file or the index is damaged
 */
export async function openWeightsFolder(folder: string): Promise<WeightsFile> {
  for (const { name, shard, open } of FORMATS) {
    const path = `${folder}/${name}`, index = `${path}.index.json`;
    if (await exists(path)) return await open(path);
    if (await exists(index)) return await ShardedWeights.open(index, shard, open);
  }
  throw new CheckpointError(`${folder} has no weights: there is no ${FORMATS.map(({ name }) => name).join(" or ")}`);
}

/** Several files of weights with an index, with the interface of a single file. */
class ShardedWeights implements WeightsFile {
  readonly tensors: WeightsFile["tensors"];
  readonly #shardOf: ReadonlyMap<string, WeightsFile>;

  private constructor(readonly path: string, readonly shards: readonly WeightsFile[]) {
    const all = shards.flatMap((shard) => [...shard.tensors].map(([name, tensor]) => ({ name, tensor, shard })));
    this.tensors = new Map(all.map(({ name, tensor }) => [name, tensor]));
    this.#shardOf = new Map(all.map(({ name, shard }) => [name, shard]));
  }

  /** @param plain matches valid names of shards: names of files in the index's folder, no paths to other folders */
  static async open(path: string, plain: RegExp, open: Open): Promise<ShardedWeights> {
    const refuse = (why: string) => new CheckpointError(`${path} is damaged: ${why}`);
    const { weight_map: map } = await readJson(path), folder = path.slice(0, path.lastIndexOf("/"));
    if (!isObject(map)) throw refuse("it has no weight_map");
    const places = new Map(Object.entries(map)), shards = new Map<unknown, WeightsFile>();
    for (const [name, file] of places) {
      if (typeof file === "string" && plain.test(file)) continue;
      throw refuse(`it has ${name} in ${JSON.stringify(file)}, which is not the name of a weights file in this folder`);
    }
    try {
      for (const file of new Set(places.values())) shards.set(file, await open(`${folder}/${file}`));
      for (const [name, file] of places) {
        if (!shards.get(file)!.tensors.has(name)) throw refuse(`${file} does not have ${name}`);
      }
      for (const [file, { tensors }] of shards) {
        const stray = [...tensors.keys()].find((name) => places.get(name) !== file);
        if (stray !== undefined) throw refuse(`${file} has ${stray}, but the index does not name this file for it`);
      }
      return new ShardedWeights(path, [...shards.values()]);
    } catch (error) {
      for (const shard of shards.values()) shard.close();
      throw error;
    }
  }

  #of(name: string): WeightsFile {
    const shard = this.#shardOf.get(name);
    if (!shard) throw new CheckpointError(`${this.path} has no tensor ${name}`);
    return shard;
  }
  readTensor(name: string): Promise<TensorArray> {
    return this.#of(name).readTensor(name);
  }
  readFloats(name: string, begin: number, out: Float32Array<ArrayBuffer>): Promise<void> {
    return this.#of(name).readFloats(name, begin, out);
  }
  close(): void {
    for (const shard of this.shards) shard.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
