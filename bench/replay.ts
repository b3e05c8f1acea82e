/**
 * What a launch costs the host in a training step and in decoding a token, both eager and replayed. The benchmark waits
 * for the device between steps, and does not count the wait. On the CPU device it also measures the checks of launches,
 * which a replay does not make: it repeats the step's launches with all their operands, without running the kernels.
 *
 *     deno run --allow-read bench/replay.ts [cpu|webgpu|webgpu:software …]
 *
 * The model has four layers and is as small as possible, because on the CPU device (one thread) a launch's time
 * includes the kernel's work. Software adapters of WebGPU, too, compute on the processor and fill its caches. On a GPU
 * nanoGPT's CPU setting is measured as well.
 */
import { noGrad } from "../src/engine/autograd.ts";
import { createDevice, type DeviceName } from "../src/device/create.ts";
import type { Device, Launch } from "../src/engine/device.ts";
import { DryDevice } from "../src/device/dry.ts";
import { WebGPUDevice } from "../src/device/webgpu.ts";
import { GPT } from "../src/gpt.ts";
import { launch } from "../src/engine/launch.ts";
import { Tensor } from "../src/engine/tensor.ts";

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
/**
 * Measures the checks of a step's launches.
 *
 * @param steps returns a function that runs a step on the given device
 */
function measureChecks(device: Device, what: string, steps: (on: Device) => () => void) {
  const dry = new DryDevice(device), step = steps(dry), launches: Launch[] = [];
  dry.run = (one) => void launches.push(one);
  step();
  dry.run = () => {};
  const calls = launches.map(({ kernel, storages, sizes, params }) => {
    const operands: Record<string, Tensor> = {};
    for (const { name, shape } of kernel.operands) {
      const actual = shape.map((axis) => typeof axis === "number" ? axis : sizes[axis]);
      if (storages[name]) operands[name] = new Tensor(storages[name], actual);
    }
    return () => launch(kernel, operands, params);
  });
  const times: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const start = performance.now();
    for (const call of calls) call();
    times.push(1000 * (performance.now() - start));
  }
  const us = median(times.slice(500)), each = us / calls.length;
  console.log(
    `${device.name}\t${what}\tchecks\t${calls.length} launches\t\t${us.toFixed(0)} µs\t${each.toFixed(2)} µs a launch`,
  );
}
const submits = (device: Device) => device instanceof WebGPUDevice ? device.submitted.submits : 0;

const SETTINGS = {
  smallest: { vocabSize: 8, blockSize: 8, nLayer: 4, nHead: 1, nEmbd: 8, bias: false, batchSize: 1 },
  "CPU setting": { vocabSize: 65, blockSize: 64, nLayer: 4, nHead: 4, nEmbd: 128, bias: false, batchSize: 12 },
};

for (const name of Deno.args.length ? Deno.args : ["cpu"]) {
  for (const [setting, { batchSize, ...config }] of Object.entries(SETTINGS)) {
    if (name === "cpu" && setting !== "smallest") continue;
    const device = await createDevice(name as DeviceName, name === "cpu" ? { threads: 1 } : {}),
      shape = [batchSize, config.blockSize];
    const training = (on: Device) => {
      const model = new GPT(config, { device: on });
      const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-3, betas: [0.9, 0.99] });
      const ids = on.tensor(new Int32Array(shape[0] * shape[1]), shape, { dtype: "i32" });
      optimizer.prepare();
      const step = () => {
        using _ = on.scope();
        model.forward(ids, ids).loss.backward();
        optimizer.update();
        optimizer.zeroGrad();
      };
      return { model, optimizer, step };
    };
    const what = `${setting}, training step`, { model, optimizer, step } = training(device);
    await measure(device, what, step, () => optimizer.gradNorm.data());
    const cache = model.createCache(), one = device.tensor([1], [1, 1], { dtype: "i32" });
    await measure(device, `${setting}, decoded token`, () => {
      using _ = device.scope();
      cache.reset();
      noGrad(() => model.forward(one, undefined, { cache }));
    }, () => cache.next.position.data());
    if (name === "cpu") measureChecks(device, what, (dry) => training(dry).step);
    device.close();
  }
}
