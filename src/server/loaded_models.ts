/** The loaded models by name. Used in the worker. */
import { ConfigError } from "../errors.ts";
import type { AdapterSpec, LoadedInfo, ModelSpec } from "./messages.ts";
import { Served } from "./served.ts";

/** A loaded model and the number of its adapter; 0 means no adapter. */
export interface LoadedModel {
  readonly served: Served;
  readonly adapter: number;
}

export class LoadedModels implements Disposable {
  readonly #models = new Map<string, LoadedModel>();

  /** Returns a loaded model. @throws {ConfigError} if no model has this name */
  get(id: string): LoadedModel {
    const model = this.#models.get(id);
    if (!model) throw new ConfigError(`No model is called ${id}`);
    return model;
  }
  /** Each model once, however many adapters it has. */
  get all(): readonly Served[] {
    return [...new Set(this.#models.values().map(({ served }) => served))];
  }

  /** Loads a model or an adapter. If that fails, its memory is freed before the error is thrown. */
  async load(spec: ModelSpec | AdapterSpec): Promise<LoadedInfo> {
    if (!("base" in spec)) return await this.#loadWhole(spec);
    const { id, base, path, run } = spec, { served } = this.get(base), notes: string[] = [];
    const adapter = await served.adapters.add(path, { onNote: (line) => notes.push(line) });
    if (adapter === undefined) {
      const info = await this.#loadWhole({ ...served.spec, id, ...run ? { path: run } : { adapter: path } });
      const note = `${id} has more than low-rank matrices, so it is loaded with its own copy of ${base}`;
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

  /** Removes a model, or only an adapter. @returns the model if it was removed, undefined if only an adapter was */
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
