/** Runs in Deno and Node alike: trains, saves, loads, generates, and says what came out, to the bit. */
import {
  loadHuggingFace,
  loadNanoGPT,
  loadTensors,
  RunFolder,
  saveHuggingFace,
  saveNanoGPT,
  sources,
} from "@nanogpt/ts/checkpoint";
import { generate, GPT, loadPretrained } from "@nanogpt/ts";
import { CharacterTokenizer, loadTokenizer } from "@nanogpt/ts/tokenizer";
import { vocabulary } from "./losses.js";

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
  device.close();
  return { losses, sums, text: loaded.tokenizer.decode(ids), gpt2, missing: missing.replaceAll(folder, "FOLDER") };
}
