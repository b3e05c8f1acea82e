/**
 * Measures one training step: forward, backward, clipping, AdamW. `deno task bench:peers` also measures the training
 * steps of other libraries.
 */
import { createDevice, GPT, RandomGenerator } from "../mod.ts";

const device = await createDevice("cpu"), generator = new RandomGenerator(1337);

/** nanoGPT's CPU setting. */
const blockSize = 64, batchSize = 12, vocabSize = 65;
for (const dropout of [0, 0.1]) {
  const config = { blockSize, vocabSize, nLayer: 4, nHead: 4, nEmbd: 128, dropout, bias: false };
  const model = new GPT(config, { device, generator });
  const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-3, betas: [0.9, 0.99] });
  const ids = () => Int32Array.from({ length: batchSize * blockSize }, () => generator.randint(vocabSize));
  const tokens = device.tensor(ids(), [batchSize, blockSize], { dtype: "i32" });
  const targets = device.tensor(ids(), [batchSize, blockSize], { dtype: "i32" });
  const step = () => {
    using _ = device.scope();
    const { loss } = model.forward(tokens, targets);
    loss.backward();
    optimizer.step({ gradClip: 1 });
    optimizer.zeroGrad();
  };
  for (let i = 0; i < 20; i++) step(); // kernels compile
  Deno.bench(`step, 4 layers, 4 heads, 128 wide, context 64, batch 12, dropout ${dropout}`, step);
}
