/**
 * Measures @genai-fi/nanogpt, for bench/peers.ts: a step of its own trainer. Without a GPU, the package has only one
 * backend, plain JavaScript. Its model has RMS norms and no biases. Its gradient clipping needs a GPU, so gradients are
 * not clipped.
 */
import { answer, repeated } from "./answer.ts";
import type { Request } from "./measures.ts";
import { load } from "./npm_peer.ts";

const [folder] = Deno.args, name = "@genai-fi/nanogpt";
// The package's own copy of TensorFlow.js mistakes Deno for Node and fails. All copies of TensorFlow.js share their
// environment, so setting a flag in this copy corrects the other.
const { library: tf } = await load(folder, "@tensorflow/tfjs");
tf.env().set("IS_NODE", false);
const { library: genai, version } = await load(folder, name);
const { default: Trainer } = await import(`file://${folder}/node_modules/${name}/dist/training/BasicTrainer.js`);
await tf.setBackend("cpu");

await answer<Request & { kind: "training" }>(
  `${name} ${version}, plain JavaScript, Deno ${Deno.version.deno}`,
  (request) => {
    const { batchSize, blockSize, vocabSize, nLayer, nHead, nEmbd: nEmbed, dropout } = request;
    const sizes = { vocabSize, blockSize, nLayer, nHead, nEmbed, mlpFactor: 4 };
    const model = new genai.models.NanoGPTV1({ modelType: "GenAI_NanoGPT_v1", ...sizes, useRope: false });
    const trainer = new Trainer(model, { vocabSize }, {
      learningRate: 1e-3,
      beta1: 0.9,
      beta2: 0.99,
      weightDecay: 0.1,
    });
    trainer.setDropout(dropout ?? 0);
    const shape = [batchSize, blockSize];
    const ids = () => tf.randomUniformInt(shape, 0, vocabSize);
    return repeated(async () => {
      const xs = ids(), ys = ids(), loss = trainer.trainStep({}, { xs, ys }), [read] = await loss.data();
      tf.dispose([xs, ys, loss]);
      if (!Number.isFinite(read)) throw new Error(`the loss is ${read}`);
    });
  },
);
