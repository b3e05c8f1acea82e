/** Runs in Deno, Node.js and pages: computes the exact losses of a few steps of a small model. */
import { createDevice, GPT, RandomGenerator, Trainer } from "@nanogpt/ts";

const TEXT = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer\n".repeat(20);

export const vocabulary = [...new Set(TEXT)].sort();

/** @returns the losses, the model, its device and its trainer */
export async function train(steps, threads) {
  const device = await createDevice("cpu", { threads }), generator = new RandomGenerator(1337);
  const config = { vocabSize: vocabulary.length, blockSize: 32, nLayer: 2, nHead: 2, nEmbd: 32, dropout: 0.1 };
  const model = new GPT(config, { device, generator }), ids = Int32Array.from(TEXT, (c) => vocabulary.indexOf(c));
  const options = { batchSize: 4, gradientAccumulationSteps: 2, evalIters: 1, evalInterval: 1000, warmupIters: 5 };
  const trainer = new Trainer(model, { train: ids.subarray(0, 1400), val: ids.subarray(1400) }, {
    ...options,
    ...{ maxIters: steps - 1, lrDecayIters: steps, generator },
  });
  const losses = [];
  for await (const event of trainer.run()) if (event.kind === "step") losses.push(event.loss);
  return { losses, model, device, trainer };
}
