/**
 * Prints a line for each thread count in its arguments: the SHA-256 of the results of training steps of a small model,
 * of decoding with the model, and of some large ops. Equal lines mean equal bits. Training has dropout. First the steps
 * are eager; then a trainer captures and replays steps with accumulated gradients. bits_test.ts runs this script in
 * V8's wide and narrow modes.
 */
import { createDevice } from "../../src/device/create.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { GPT } from "../../src/gpt.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { softmax } from "../../src/ops/softmax.ts";
import { sum } from "../../src/ops/sum.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { generate, generateSequences } from "../../src/generate/generate.ts";
import { Trainer } from "../../src/train/trainer.ts";

for (const threads of Deno.args.map(Number)) {
  const device = await createDevice("cpu", { threads }), generator = new RandomGenerator(7);
  const results: Uint8Array[] = [], numbers: number[] = [];
  const add = async (t: { data(): Promise<ArrayBufferView> }) => {
    const { buffer, byteOffset, byteLength } = await t.data();
    results.push(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
  };
  const config = { vocabSize: 67, blockSize: 77, nLayer: 2, nHead: 3, nEmbd: 75, dropout: 0.1, bias: true };
  const model = new GPT(config, { device, seed: 1 });
  const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-2, betas: [0.9, 0.99] });
  for (let step = 0; step < 5; step++) {
    const ids = () =>
      device.tensor(Int32Array.from({ length: 5 * 77 }, () => generator.randint(67)), [5, 77], { dtype: "i32" });
    using scope = device.scope();
    const { loss } = model.forward(ids(), ids());
    loss.backward();
    optimizer.step({ learningRate: 1e-2, gradClip: 1 });
    optimizer.zeroGrad();
    const kept = scope.keep(loss);
    scope[Symbol.dispose]();
    await add(kept);
  }
  const tokens = Int32Array.from({ length: 500 }, () => generator.randint(67));
  const options = { batchSize: 4, gradientAccumulationSteps: 3, maxIters: 3, evalInterval: 2, evalIters: 1 };
  const trainer = new Trainer(model, { train: tokens, val: tokens }, options);
  for await (const event of trainer.run()) {
    if (event.kind === "step") numbers.push(event.loss, event.gradNorm);
    else if (event.kind === "evaluation") numbers.push(event.trainLoss, event.valLoss);
  }
  for (const parameter of model.parameters()) await add(parameter);
  for (const [, average] of trainer.optimizer.namedState()) await add(average);
  // Up to the block size, tokens are decoded with the cache, by a captured program; beyond it, each token runs the
  // whole window.
  for await (const token of generate(model, [1, 2], { maxNewTokens: 90, temperature: 0.9, topK: 50 })) {
    numbers.push(token);
  }
  const rules = { topP: 0.9, minP: 0.01, repetitionPenalty: 1.2, frequencyPenalty: 0.1, logitBias: { 3: 1 } };
  const told = { maxNewTokens: 60, numReturnSequences: 7, topLogprobs: 5, draws: "philox", ...rules } as const;
  for await (const { id, logprob, topLogprobs = [] } of generateSequences(model, [1, 2], told)) {
    numbers.push(id, logprob!, ...topLogprobs.flatMap(({ id, logprob }) => [id, logprob]));
  }
  const cache = model.eval().createCache(2),
    ids = (...ids: number[]) => device.tensor(ids, [2, ids.length / 2], { dtype: "i32" });
  for (const prompt of [ids(1, 2, 3, 4, 5, 6), ids(7, 8), ids(9, 10)]) {
    await add(noGrad(() => model.forward(prompt, undefined, { cache })).logits);
  }
  const random = (...shape: number[]) => {
    const values = new Float32Array(shape.reduce((a, b) => a * b));
    generator.normal(values, 0, 1);
    return device.tensor(values, shape);
  };
  await add(matmul(random(131, 801), random(801, 203)));
  await add(matmul(random(431, 801), random(801, 523))); // too large for each thread to pack a copy of its own
  await add(sum(random(300001)));
  await add(sum(random(70, 5, 901), { axis: 0 }));
  await add(softmax(random(333, 517)));
  await add({ data: () => Promise.resolve(Float64Array.from(numbers)) });
  const all = new Uint8Array(results.reduce((n, bytes) => n + bytes.length, 0));
  results.reduce((at, bytes) => (all.set(bytes, at), at + bytes.length), 0);
  if (new Float32Array(all.buffer).some(Number.isNaN)) throw new Error("a result is NaN, and equal NaNs prove nothing");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  console.log(digest.toHex());
  device.close();
}
