/**
 * Compares captured and replayed steps with eager steps: the bits are equal, a replay allocates nothing, and it touches
 * no other tensor.
 */
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../../src/engine/device.ts";
import { WebGPUDevice } from "../../src/device/webgpu.ts";
import { DeviceError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { add, gelu, linear, mul } from "../../src/ops/mod.ts";
import { devices } from "../testing.ts";
import { normal } from "./agree.ts";

const bits = ({ buffer }: { readonly buffer: ArrayBufferLike }) => new Int32Array(buffer);
const CONFIG = { blockSize: 24, vocabSize: 31, nLayer: 2, nHead: 2, nEmbd: 20, dropout: 0.1, bias: true };

/** A model, and steps that train it: eager, or captured in the first step and replayed in later steps. */
function training(device: Device, replays: boolean) {
  const model = new GPT(CONFIG, { device }),
    optimizer = model.configureOptimizers({
      weightDecay: 0.1,
      learningRate: 1e-3,
      betas: [0.9, 0.99],
    });
  const ids = device.tensor(new Int32Array(72), [3, 24], { dtype: "i32" });
  const body = () => {
    using scope = device.scope();
    const { loss } = model.forward(ids, ids);
    loss.backward();
    optimizer.update();
    optimizer.zeroGrad();
    return scope.keep(loss);
  };
  let program: ReturnType<typeof device.capture<ReturnType<typeof body>>> | undefined, steps = 0;
  const step = () => {
    device.write(ids.storage, Int32Array.from({ length: 72 }, (_, i) => (i * i + 3 * steps) % 31));
    optimizer.prepare({ learningRate: 1e-2 / ++steps, gradClip: 1 });
    if (!replays) return body();
    if (program) {
      model.noise.begin();
      program.replay();
    } else program = device.capture(body);
    device.flush();
    return program.result;
  };
  return { model, step, program: () => program! };
}

for (const { name, device } of await devices()) {
  Deno.test(`capture: training steps replayed have the bits of eager ones (${name})`, async () => {
    const eager = training(device, false), captured = training(device, true);
    for (let i = 0; i < 5; i++) {
      const [expected, actual] = [eager.step(), captured.step()];
      assertEquals(bits(await actual.data()), bits(await expected.data()), `loss of step ${i}`);
      expected.dispose();
    }
    const weights = ({ model }: typeof eager) => Promise.all(model.parameters().map(async (p) => bits(await p.data())));
    assertEquals(await weights(captured), await weights(eager));
    captured.program().dispose();
  });

  Deno.test(`capture: replays allocate nothing, after 10 steps or 60 (${name})`, async () => {
    const { step, program } = training(device, true);
    const counts = (gpu: Device) => gpu instanceof WebGPUDevice ? gpu.created : {};
    const steps = async (count: number) => {
      for (let i = 0; i < count; i++) step();
      await device.read(program().result.storage);
      return { memory: device.memory(), ...counts(device) };
    };
    await steps(2);
    const after2 = await steps(1);
    assertEquals(await steps(7), after2);
    assertEquals(await steps(50), after2);
    program().dispose();
  });

  Deno.test(`capture: other tensors get none of a program's memory, and its constants stay (${name})`, async () => {
    const x = device.tensor(normal(12), [3, 4]), weight = device.tensor(normal(16, 2), [4, 4]);
    const body = () => {
      using scope = device.scope();
      const y = gelu(linear(x, weight)); // the scope frees the memory of linear and gelu
      return scope.keep(add(mul(y, y), device.tensor(normal(12, 3), [3, 4])));
    };
    const program = device.capture(body), expected = bits(await program.result.data());
    // New tensors must not share memory with the program, in either direction.
    const others = Array.from({ length: 20 }, (_, i) => device.tensor(new Float32Array(12).fill(i), [3, 4]));
    program.replay();
    assertEquals(bits(await program.result.data()), expected);
    for (const [i, other] of others.entries()) assertEquals(new Set(await other.data()), new Set([i]));
    x.dispose(); // the program still holds the tensors that it reads
    device.tensor(new Float32Array(12), [3, 4]);
    program.replay();
    assertEquals(bits(await program.result.data()), expected);
    program.dispose();
    program.dispose();
    assertThrows(() => program.replay(), DeviceError, "the program has been disposed of");
  });

  Deno.test(`capture: a program lends its own memory, and gets it back (${name})`, async () => {
    const x = device.tensor(normal(12), [3, 4]);
    const body = () => {
      using scope = device.scope();
      return scope.keep(add(gelu(mul(x, x)), x));
    };
    const program = device.capture(body), expected = bits(await program.result.data()), before = device.memory();
    const lent = program.lend(body); // only the sum gets new memory: the program's result is in use
    assertEquals(bits(await lent.data()), expected);
    lent.dispose();
    const after = device.memory();
    assertEquals({ ...after, reserved: 0 }, { ...before, reserved: 0 });
    for (let i = 0; i < 5; i++) program.lend(body).dispose();
    assertEquals(device.memory(), after);
    program.replay();
    assertEquals(bits(await program.result.data()), expected);
    program.dispose();
  });

  Deno.test(`capture: what cannot be captured is rejected, without leaks (${name})`, async () => {
    const x = device.tensor([1, 2], [2]), before = device.memory();
    assertThrows(() => device.capture(() => device.capture(() => {})), DeviceError, "another capture is going on");
    assertThrows(() => device.capture(() => Promise.resolve()), TypeError, "must not be asynchronous");
    assertThrows(() => device.capture(() => void x.data()), DeviceError, "a capture cannot read");
    assertThrows(
      () =>
        device.capture(() => {
          using _ = device.scope();
          device.write(add(x, x).storage, [1, 2]);
        }),
      DeviceError,
      "inside a capture, write only to tensors made before it",
    );
    assertEquals(device.memory().tensors, before.tensors);
    assertEquals(device.memory().bytes, before.bytes);
    assertEquals([...await add(x, x).data()], [2, 4]);
  });

  Deno.test(`capture: backward throws if a replay has overwritten a saved tensor (${name})`, () => {
    const x = device.tensor([1, 2], [2], { requiresGrad: true }), y = device.tensor([0, 0], [2]);
    const program = device.capture(() => mul(y, y)), z = mul(x, program.result);
    program.replay();
    assertThrows(() => z.backward(device.tensor([1, 1], [2])), TypeError);
    program.dispose();
  });
}

Deno.test("capture: a closed device replays nothing", async () => {
  for (const { device } of await devices()) {
    const x = device.tensor([1], [1]), program = device.capture(() => add(x, x));
    device.close();
    assertThrows(() => program.replay(), DeviceError, "is closed");
    assertEquals(program.launches, 1);
    program.dispose();
  }
});
