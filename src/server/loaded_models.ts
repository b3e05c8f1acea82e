/** In the worker: which models are loaded, and what their names stand for. */
import { ConfigError } from "../errors.ts";
import type { AdapterSpec, LoadedInfo, ModelSpec } from "./messages.ts";
import { Served } from "./served.ts";

/** What a name stands for: a model, with the adapter of this number; 0 is none. */
export interface LoadedModel {
  readonly served: Served;
  readonly adapter: number;
}

export class LoadedModels implements Disposable {
  readonly #models = new Map<string, LoadedModel>();

  /** @throws {ConfigError} when there is none of this name */
  get(id: string): LoadedModel {
    const model = this.#models.get(id);
    if (!model) throw new ConfigError(`No model is called ${id}`);
    return model;
  }
  /** Each once, however many adapters stand on it. */
  get all(): readonly Served[] {
    return [...new Set(this.#models.values().map(({ served }) => served))];
  }

  /** @throws what loading throws; nothing is left then */
  async load(spec: ModelSpec | AdapterSpec): Promise<LoadedInfo> {
    if (!("base" in spec)) return await this.#loadWhole(spec);
    const { id, base, path, run } = spec, { served } = this.get(base), notes: string[] = [];
    const adapter = await served.adapters.add(path, { onNote: (line) => notes.push(line) });
    if (adapter === undefined) {
      const info = await this.#loadWhole({ ...served.spec, id, ...run ? { path: run } : { adapter: path } });
      const note = `${id} has more than pairs of matrices, and so a copy of ${base} of its own`;
      return { ...info, notes: [...info.notes, note] };
    }
    this.#models.set(id, { served, adapter });
    return { ...served.info, notes };
  }
  async #loadWhole(spec: ModelSpec): Promise<LoadedInfo> {
    const served = await Served.load(spec);
    this.#models.set(spec.id, { served, adapter: 0 });
    return served.info;
  }

  /** Nothing is written with it any more. @returns the model, where it is gone, and not an adapter of it alone */
  unload(id: string): Served | undefined {
    const { served, adapter } = this.get(id);
    this.#models.delete(id);
    if (adapter > 0) return void served.adapters.remove(adapter);
    for (const [name, model] of this.#models) if (model.served === served) this.#models.delete(name);
    served[Symbol.dispose]();
    return served;
  }
  [Symbol.dispose](): void {
    for (const served of this.all) served[Symbol.dispose]();
  }
}
