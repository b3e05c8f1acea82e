/**
 * Training a part of a model: the head alone, the last blocks, all of it layer by layer (Howard and Ruder 2018, "Universal Language
 * Model Fine-tuning for Text Classification", arXiv:1801.06146: gradual unfreezing, and rates that fall from layer to layer).
 */
import { ConfigError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NamedParameter, ParameterGroup } from "../optim/adamw.ts";

/** Which rates layers have, and from when on. */
export interface TransferRates {
  /** A layer's rate by that of the layer above it; 1 / 2.6 in the paper. Default 1: all alike. */
  readonly layerDecay?: number;
  /**
   * Updates after which one layer more is trained, from the top: the head, then the last block with the last layer norm, and so on
   * down to the embeddings. Default 0: all from the start.
   */
  readonly unfreezeEvery?: number;
}

/**
 * Freezes a model but for its last blocks and what stands above them. Before an optimizer is made.
 *
 * @param blocks how many are trained; 0 freezes the whole model, with its embeddings and the language model's head
 * @throws {ConfigError} when the model has not as many, or is stored in a way that cannot be trained
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { trainLastBlocks } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 3, nHead: 2, nEmbd: 16 }, { device });
 * trainLastBlocks(model, 1);
 * const names = [...model.namedParameters({ trainable: true })].map(([name]) => name);
 * assertEquals(names[0], "transformer.h.2.ln_1.weight");
 * assertEquals(names.at(-1), "transformer.ln_f.bias");
 * device.close();
 * ```
 */
export function trainLastBlocks(model: GPT, blocks: number): void {
  const { h, ln_f } = model.transformer;
  if (!(Number.isSafeInteger(blocks) && blocks >= 0 && blocks <= h.length)) {
    throw new ConfigError(`The last ${blocks} blocks are to be trained; expected a whole number from 0 to ${h.length}`);
  }
  model.freeze();
  for (const block of h.slice(h.length - blocks)) block.unfreeze();
  if (blocks > 0) ln_f.unfreeze();
}

/**
 * An optimizer's groups, from the head down: the head; each block, the last one with the last layer norm; the embeddings. Group d
 * has the rate times `layerDecay`ᵈ, and is trained after d · `unfreezeEvery` updates. Of each only what is not frozen is there.
 *
 * @param added the head's parameters
 * @throws {ConfigError} when a rate is out of range
 */
export function layerGroups(
  model: GPT,
  added: readonly NamedParameter[],
  { learningRate = 1e-3, layerDecay = 1, unfreezeEvery = 0 }: TransferRates & { readonly learningRate?: number },
): ParameterGroup[] {
  if (!(layerDecay > 0 && layerDecay <= 1)) {
    throw new ConfigError(`layerDecay is ${layerDecay}; expected a number above 0, at most 1`);
  }
  if (!(Number.isSafeInteger(unfreezeEvery) && unfreezeEvery >= 0)) {
    throw new ConfigError(`unfreezeEvery is ${unfreezeEvery}; expected a whole number, 0 or above`);
  }
  const { nLayer } = model.config, own = [...model.namedParameters({ trainable: true })];
  if (layerDecay === 1 && unfreezeEvery === 0) return [{ parameters: [...own, ...added] }];
  const layers: NamedParameter[][] = Array.from({ length: nLayer + 2 }, () => []);
  layers[0].push(...added);
  for (const one of own) layers[depthOf(one[0], nLayer)].push(one);
  return layers.map((parameters, depth) => ({
    parameters,
    learningRate: learningRate * layerDecay ** depth,
    from: depth * unfreezeEvery,
  })).filter(({ parameters }) => parameters.length > 0);
}

/** 1 for the last block, up to nLayer + 1 for the embeddings. */
function depthOf(name: string, nLayer: number): number {
  const block = /^transformer\.h\.(\d+)\./.exec(name);
  if (block) return nLayer - Number(block[1]);
  return /\.(wte|wpe)\./.test(name) ? nLayer + 1 : 1;
}
