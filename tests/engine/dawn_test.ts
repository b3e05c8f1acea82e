/** Tests for WebGPU by Dawn: the permission that loading it needs, and how often it polls the GPU. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { DeviceError } from "../../src/errors.ts";
import { matmul } from "../../src/ops/mod.ts";
import { openDevice } from "../testing.ts";

Deno.test({
  name: "dawn: without permission for native code it is rejected, and nothing is downloaded",
  permissions: { ffi: false, net: false },
  fn: async () => {
    const message = "webgpu:dawn: Dawn is native code, which Deno loads only with --allow-ffi";
    const error = await assertRejects(() => createDevice("webgpu:dawn:software"), DeviceError);
    assertEquals(error.message, message);
  },
});

const names = (Deno.env.get("NANOGPT_TEST_DEVICES") ?? "").split(",").filter((name) => name.startsWith("webgpu:dawn"));
for (const name of names) {
  Deno.test(`dawn: in a long wait it polls seldom, through a setImmediate that is not global (${name})`, async () => {
    const usual = globalThis.setImmediate;
    let first = Infinity, late = 0;
    const counting = ((ask: () => void) =>
      usual(() => {
        first = Math.min(first, performance.now());
        if (performance.now() - first > 20) late++;
        ask();
      })) as typeof setImmediate;
    globalThis.setImmediate = counting;
    try {
      const device = await openDevice(name), n = 512, x = device.tensor(new Float32Array(n * n).fill(1), [n, n]);
      await matmul(x, x).data(); // compiles the kernel
      for (let count = 4, waited = 0; waited < 50; count *= 2) { // until the wait is long on this machine
        first = Infinity;
        late = 0;
        const products = Array.from({ length: count }, () => matmul(x, x)), began = performance.now();
        assertEquals((await products[count - 1].data())[7], n);
        waited = performance.now() - began;
        for (const product of products) product.dispose();
      }
      // In the first half millisecond of a wait Dawn polls at every turn of the event loop; here there is one wait. A
      // turn that was interrupted can be late.
      assert(late < 5, `polled ${late} times at once after more than 20 ms`);
      assertEquals(globalThis.setImmediate, counting);
      device.close();
    } finally {
      globalThis.setImmediate = usual;
    }
  });
}
