/** Runs in Deno and in Node.js: trains, saves, loads, generates, and prints the exact results. */
import {
  loadHuggingFace,
  loadNanoGPT,
  loadTensors,
  RunFolder,
  saveHuggingFace,
  saveNanoGPT,
  sources,
} from "@nanogpt/ts/checkpoint";
import { generate, GPT, loadPretrained, RandomGenerator, Trainer } from "@nanogpt/ts";
import { loadData, prepare } from "@nanogpt/ts/data";
import { CharacterTokenizer, loadTokenizer } from "@nanogpt/ts/tokenizer";
import { readFileSync, writeFileSync } from "node:fs";
import { vocabulary } from "./losses.js";

/** Prepares a text and trains on the folder. @returns the prepared data, its files, and the losses */
async function trainOnPrepared(model, folder) {
  const input = `${folder}/input.txt`, outDir = `${folder}/data`, generator = new RandomGenerator(1337);
  writeFileSync(input, [...vocabulary, ...vocabulary.toReversed()].join("").repeat(100));
  const preparing = prepare({ input, outDir, tokenizer: "character", threads: 2 });
  let next = await preparing.next();
  while (!next.done) next = await preparing.next();
  const files = ["train.bin", "val.bin", "meta.json", "meta.pkl"].map((name) => [...readFileSync(`${outDir}/${name}`)]);
  const { data } = await loadData({ dataset: outDir, blockSize: 32 });
  const options = {
    batchSize: 2,
    gradientAccumulationSteps: 1,
    evalInterval: 1000,
    evalIters: 1,
    maxIters: 2,
    generator,
  };
  const trainer = new Trainer(model, data, { ...options, logInterval: 1, lrDecayIters: 3, warmupIters: 1 }),
    losses = [];
  for await (const event of trainer.run()) if (event.kind === "step") losses.push(event.loss);
  for (const tokens of [data.train, data.val]) tokens[Symbol.dispose]();
  return { prepared: next.value, files, losses };
}

async function sum(model) {
  let sum = 0;
  for (const [name, tensor] of model.namedParameters()) {
    const bits = new Int32Array((await tensor.data()).buffer.slice(0));
    for (const word of bits) sum = Math.imul(sum, 31) + word | 0;
    sum = Math.imul(sum, 31) + name.length | 0;
  }
  return sum;
}

export async function everything({ losses, model, device, trainer }, folder) {
  const tokenizer = new CharacterTokenizer(vocabulary), sums = { trained: await sum(model) };
  model.eval();
  await saveHuggingFace(model, `${folder}/hf`);
  sums.huggingFace = await sum(await loadHuggingFace(`${folder}/hf`, { device }));
  await saveNanoGPT(`${folder}/ckpt.pt`, model, { iter: 20, bestValLoss: null, optimizer: trainer.optimizer });
  const { model: fromNanoGPT } = await loadNanoGPT(`${folder}/ckpt.pt`, { device });
  sums.nanoGPT = await sum(fromNanoGPT);
  const run = await RunFolder.create(`${folder}/run`, {
    flags: { max_iters: 19 },
    model: model.config,
    vocabulary: tokenizer.toJSON(),
  });
  const optimizer = sources(trainer.optimizer.namedState());
  await run.save({ iter: 20, model: sources(model.namedParameters()), optimizer, state: {} }, { best: true });
  await run.log({ iter: 19, loss: 1, lr: 1, grad_norm: 1, ms: 1, tokens_per_second: 1 });
  const saved = await (await RunFolder.open(`${folder}/run`)).checkpoint("best");
  const again = new GPT(model.config, { device, initialize: false });
  await loadTensors(saved.model, again.namedParameters());
  sums.run = await sum(again);
  const loaded = await loadPretrained(`${folder}/run`, { device });
  const options = { maxNewTokens: 50, temperature: 0.8, seed: 1337 };
  const ids = await Array.fromAsync(generate(loaded.model, loaded.tokenizer.encode("To be"), options));
  const gpt2 = await loadTokenizer("gpt2").then((gpt2) => [...gpt2.encode("Hello, world")], (error) => error.message);
  const missing = await loadHuggingFace(`${folder}/nowhere`, { device }).catch((error) => error.message);
  const prepared = await trainOnPrepared(again, folder);
  device.close();
  const text = loaded.tokenizer.decode(ids);
  return { losses, sums, text, gpt2, prepared, missing: missing.replaceAll(folder, "FOLDER") };
}
