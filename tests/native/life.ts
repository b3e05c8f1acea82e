/**
 * Opens devices with the native tile, and closes or terminates them in the middle of their work, for the number of
 * rounds in the first argument. native_test.ts runs it in a process of its own, which a fault would end. It prints the
 * number of completed rounds.
 */
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import { loadNative } from "../../src/native/load.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

const values = new Float32Array(200 * 200), native = await loadNative();
new RandomGenerator(1).normal(values, 0, 1);

async function product(device: Device): Promise<string> {
  using scope = device.scope();
  const x = device.tensor(values, [200, 200]), c = scope.keep(matmul(x, x));
  scope[Symbol.dispose]();
  return `${new Uint32Array((await c.data().finally(() => c.dispose())).buffer)}`;
}

if ("WorkerGlobalScope" in globalThis) { // works until it is terminated
  const device = await createDevice("cpu", { threads: 2, native });
  await product(device);
  self.postMessage("working");
  for (;;) {
    await product(device);
    await new Promise((resolve) => setTimeout(resolve)); // lets terminate() take effect between tasks
  }
}

const reference = await createDevice("cpu", { threads: 1 }),
  expected = await product(reference),
  random = new RandomGenerator(2);
const rounds = Number(Deno.args[0]);
for (let round = 0; round < rounds; round++) {
  const worker = new Worker(import.meta.url, { type: "module" });
  await new Promise((resolve) => worker.onmessage = resolve);
  const devices = await Promise.all([1, 2, 3].map((threads) => createDevice("cpu", { threads, native })));
  while (devices.length > 0) {
    for (const device of devices) if (await product(device) !== expected) throw new Error(`round ${round}: other bits`);
    devices.splice(random.randint(devices.length), 1)[0].close();
    if (devices.length === random.randint(3)) worker.terminate();
  }
  worker.terminate();
}
console.log(`${rounds} rounds`);
reference.close();
