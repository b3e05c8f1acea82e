/**
 * Training parts of a model: only the head, only the last blocks, or all layers with gradual unfreezing and a learning
 * rate that falls from layer to layer (Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text
 * Classification", arXiv:1801.06146).
 */
import { ConfigError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NamedParameter, ParameterGroup } from "../optim/adamw.ts";

/** Options for the learning rates of layers, and for the time when their training starts. */
export interface TransferRates {
  /**
   * The ratio of a layer's learning rate to that of the layer above it; 1 / 2.6 in the paper. Default: 1, equal rates.
   */
  readonly layerDecay?: number;
  /**
   * Gradual unfreezing: after each period of this many updates, one more layer is trained. At first it is only the head,
   * then also the last block with the last layer norm, and so on down to the embeddings. Default: 0, all layers are
   * trained from the start.
   */
  readonly unfreezeEvery?: number;
}

/**
 * Freezes a model except for its last blocks and the last layer norm. Call it before you create an optimizer.
 *
 * @param blocks how many blocks are trained; 0 freezes the whole model, including embeddings and language modelling
 *   head
 * @throws {ConfigError} when the model has fewer blocks, or its storage type cannot be trained
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
    throw new ConfigError(`trainLastBlocks: blocks is ${blocks}; expected a whole number from 0 to ${h.length}`);
  }
  model.freeze();
  for (const block of h.slice(h.length - blocks)) block.unfreeze();
  if (blocks > 0) ln_f.unfreeze();
}

/**
 * Splits the trainable parameters into an optimizer's groups, from the top down: the head; the last block with the last
 * layer norm; each block below it; the embeddings. Group d, counted from 0, has the learning rate times `layerDecay`ᵈ,
 * and its training starts after d · `unfreezeEvery` updates.
 *
 * @param added the parameters of the head that was added to the model
 * @throws {ConfigError} when `layerDecay` or `unfreezeEvery` is out of range
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

/** The group of a parameter: 1 for the last block, up to nLayer + 1 for the embeddings. */
function depthOf(name: string, nLayer: number): number {
  const block = /^transformer\.h\.(\d+)\./.exec(name);
  if (block) return nLayer - Number(block[1]);
  return /\.(wte|wpe)\./.test(name) ? nLayer + 1 : 1;
}
