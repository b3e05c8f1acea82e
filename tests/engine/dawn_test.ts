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
    let asked = 0;
    const counting = ((ask: () => void) =>
      usual(() => {
        asked++;
        ask();
      })) as typeof setImmediate;
    globalThis.setImmediate = counting;
    try {
      const device = await openDevice(name), n = 512, x = device.tensor(new Float32Array(n * n).fill(1), [n, n]);
      await matmul(x, x).data(); // compiles the kernel
      asked = 0;
      const began = performance.now(), products = Array.from({ length: 4 }, () => matmul(x, x));
      assertEquals((await products[3].data())[7], n);
      const waited = performance.now() - began;
      // In the first half millisecond of a wait Dawn polls at every turn of the event loop; here there is one wait.
      assert(waited > 50, `the wait was not long: ${waited} ms`);
      assert(asked < 200, `asked ${asked} times at once in ${waited} ms`);
      assertEquals(globalThis.setImmediate, counting);
      device.close();
    } finally {
      globalThis.setImmediate = usual;
    }
  });
}
