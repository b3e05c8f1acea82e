/** A loaded model on its own device, so that closing the device frees all of the model's memory. Used in the worker. */
import { createDevice } from "../device/create.ts";
import { gib } from "../engine/capacity.ts";
import type { Device } from "../engine/device.ts";
import { noGrad } from "../engine/autograd.ts";
import { DeviceError } from "../errors.ts";
import { slotBytes } from "../generate/passes.ts";
import { Rows } from "../generate/rows.ts";
import { AdapterBank } from "../finetune/adapter_bank.ts";
import { spoken } from "../generate/stopping.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import { loadPretrained } from "../pretrained/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type LoadedInfo, type ModelSpec, MOST_SLOTS } from "./messages.ts";

/**
 * Maximum number of a prompt's tokens that one step computes. Texts that are being generated, and new requests, wait
 * for one such piece at most.
 */
const PIECE = 128;

export class Served implements Disposable {
  private constructor(
    readonly spec: ModelSpec,
    readonly model: GPT,
    readonly adapters: AdapterBank,
    readonly tokenizer: Tokenizer,
    readonly rows: Rows,
    readonly info: LoadedInfo,
  ) {}

  /** Loads a model. @throws the errors of `createDevice`, `loadPretrained` and `Rows`, after freeing all memory */
  static async load(spec: ModelSpec): Promise<Served> {
    const { id, path, adapter, weights, checkpoint, threads, slots, cache } = spec, notes: string[] = [];
    const device = await createDevice(spec.device, /^(auto|cpu)$/.test(spec.device) ? { threads } : undefined);
    try {
      const onNote = (line: string) => void notes.push(line);
      const { model, tokenizer, eosTokenIds = [] } = await loadPretrained(path, {
        ...{ device, adapter, weights, checkpoint, onNote },
        inference: true,
      });
      const count = slots || slotsFor(model, spec);
      const info: LoadedInfo = {
        ...{ endIds: eosTokenIds, slots: count, base: id, notes },
        bytes: device.memory().bytes + count * slotBytes(model, cache).all,
        device: device.description,
      };
      const adapters = new AdapterBank(model);
      const piece = { piece: PIECE, idlePiece: PIECE }; // a request that arrives meanwhile waits for one piece
      const rows = new Rows(model, { slots: count, cache, reuse: true, ...piece, tagged: adapters.tagged });
      const first = rows.add({ prompt: [0], maxNewTokens: 2, temperature: 0 }); // compiles the kernels
      while (!first.done) if (!first.ready()) await rows.step();
      return new Served(spec, model, adapters, tokenizer, rows, info);
    } catch (error) {
      device.close();
      throw error;
    }
  }

  get device(): Device {
    return this.model.device;
  }
  /** Returns the parts of the tokenizer that decode tokens; in chats, special tokens are left out. */
  decoding(stop: readonly string[], isSpoken: boolean): Pick<Tokenizer, "decoder" | "vocabSize"> {
    return isSpoken ? spoken(this.tokenizer, stop) : this.tokenizer;
  }

  /**
   * Computes the mean of the final hidden states.
   *
   * @param adapter the adapter's number; 0 is the model without an adapter
   * @param between awaited between two pieces of the input
   */
  async embed(input: readonly number[], adapter: number, between: () => Promise<void>): Promise<Float32Array> {
    const { model, device } = this, sum = new Float64Array(model.config.nEmbd);
    using cache = model.createCache(1);
    for (let at = 0; at < input.length; at += PIECE) {
      if (at > 0) await between();
      const ids = Int32Array.from(input.slice(at, at + PIECE));
      const pass = () => {
        using scope = device.scope();
        const tokens = device.tensor(ids, [1, ids.length]),
          tags = device.tensor(new Int32Array(ids.length).fill(adapter));
        return scope.keep(this.adapters.tagged(tags, () => model.hidden(tokens, { cache })));
      };
      using states = evaluating(model, () => noGrad(pass));
      (await states.data()).forEach((value, i) => sum[i % sum.length] += value);
    }
    return Float32Array.from(sum, (value) => value / input.length);
  }

  [Symbol.dispose](): void {
    this.rows[Symbol.dispose]();
    this.device.close();
  }
}

/**
 * Number of slots whose keys and values take half of the device's free memory. The other half is for a step's
 * intermediate results and for results that requests ask for, such as log-probabilities.
 */
function slotsFor(model: GPT, { id, cache }: ModelSpec): number {
  const { device } = model, { all, one } = device.capacity, of = slotBytes(model, cache);
  const left = all - device.memory().bytes, count = Math.floor(Math.min(left / 2 / of.all, one / of.layer, MOST_SLOTS));
  if (count > 0) return count;
  throw new DeviceError(
    `${id}: the keys and values of one text take ${gib(of.all)} in ${cache}, but the weights leave only ${gib(left)}` +
      (cache === "f32" ? "; --cache=bf16 needs half" : ""),
  );
}
