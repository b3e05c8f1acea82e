/**
 * What a launch costs the host, eager and replayed: nanoGPT's CPU setting, a training step and a decoded token, each step by
 * itself (the device is waited for between them, and that is not counted).
 *
 *     deno run --allow-read bench/replay.ts [cpu|webgpu|webgpu:software …]
 *
 * On the CPU device a launch's work is in its time; there the model is as small as it can be, and on one thread.
 */
import { noGrad } from "../src/autograd.ts";
import { createDevice } from "../src/device/create.ts";
import type { Device } from "../src/device/device.ts";
import { WebGPUDevice } from "../src/device/webgpu.ts";
import { GPT } from "../src/gpt.ts";

const STEPS = 30;
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function measure(device: Device, what: string, body: () => void, wait: () => Promise<unknown>) {
  const time = async (step: () => void) => {
    const times: number[] = [];
    let submitted = 0;
    for (let i = 0; i < STEPS; i++) {
      const before = submits(device), start = performance.now();
      step();
      device.flush();
      times.push(1000 * (performance.now() - start));
      submitted += submits(device) - before;
      await wait();
    }
    return { us: median(times), submits: submitted / STEPS };
  };
  const capture = () => device.capture(body);
  await time(body);
  const eager = await time(body), program = capture(), replay = await time(() => program.replay());
  for (const [how, { us, submits }] of Object.entries({ eager, replay })) {
    const each = us / program.launches;
    console.log(
      `${device.name}\t${what}\t${how}\t${program.launches} launches\t${submits} submits\t${us.toFixed(0)} µs\t` +
        `${each.toFixed(2)} µs a launch`,
    );
  }
  program.dispose();
}
const submits = (device: Device) => device instanceof WebGPUDevice ? device.submitted.submits : 0;

for (const name of Deno.args.length ? Deno.args : ["cpu"]) {
  const device = await createDevice(name, { threads: 1 }), small = name === "cpu";
  const config = small
    ? { vocabSize: 8, blockSize: 8, nLayer: 4, nHead: 1, nEmbd: 8, bias: false }
    : { vocabSize: 65, blockSize: 64, nLayer: 4, nHead: 4, nEmbd: 128, bias: false };
  const B = small ? 1 : 12, T = config.blockSize, model = new GPT(config, { device });
  const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-3, betas: [0.9, 0.99] });
  const ids = device.tensor(new Int32Array(B * T), [B, T], { dtype: "i32" });
  optimizer.prepare();
  await measure(device, "training step", () => {
    using _ = device.scope();
    model.forward(ids, ids).loss!.backward();
    optimizer.update();
    optimizer.zeroGrad();
  }, () => optimizer.gradNorm.data());
  const cache = model.createCache(), one = device.tensor([1], [1, 1], { dtype: "i32" });
  await measure(device, "decoded token", () => {
    using _ = device.scope();
    cache.reset();
    noGrad(() => model.forward(one, undefined, { cache }));
  }, () => cache.position.data());
  device.close();
}
