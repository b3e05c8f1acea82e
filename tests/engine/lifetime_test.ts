/**
 * Tests of a device's lifetime: closing, idling, scripts that forget to close the device, and systems that provide less
 * memory than requested.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { createDevice } from "../../src/device/create.ts";
import { DeviceError } from "../../src/errors.ts";
import { f32, kernel } from "../../src/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { add } from "../../src/ops/add.ts";
import { normal } from "./agree.ts";
import { openDevice } from "../testing.ts";

const folder = new URL("../../", import.meta.url).href;

/** Runs a script in a process of its own, and returns its output. */
async function run(script: string, ...args: string[]): Promise<string> {
  const url = `data:application/typescript,${encodeURIComponent(script)}`;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--allow-read", url, ...args],
    signal: AbortSignal.timeout(600_000), // ends a script that would never end
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

/**
 * A script that adds two tensors of a million times 1.5, and prints the number of threads and the distinct elements of
 * the sum.
 */
const work = (threads: number) => `
  const { createDevice } = await import("${folder}src/device/create.ts");
  const { add } = await import("${folder}src/ops/add.ts");
  const device = await createDevice("cpu", { threads: ${threads} });
  const x = device.tensor(new Float32Array(1e6).fill(1.5), [1e6]);
  console.log(device.threads, ...new Set(await add(x, x).data()));`;

Deno.test("a script that forgets to close the device ends", async () => {
  assertEquals(await run(work(4)), "4 3");
});

Deno.test("without shared memory there is one thread, and it computes the same bits", async () => {
  const unshared = "delete globalThis.SharedArrayBuffer;";
  assertEquals(await run(unshared + work(4)), "1 3");
  const bits = `await import("${folder}tests/engine/bits.ts");`;
  assertEquals(await run(unshared + bits, "2"), await run(bits, "1"));
});

Deno.test("if the system refuses 4 GiB, the device takes less", async () => {
  const refuse = (above: number) => `
    const Memory = WebAssembly.Memory;
    WebAssembly.Memory = function (options) {
      if (options.initial > ${above}) throw new RangeError("could not allocate memory");
      return new Memory(options);
    };`;
  const size = `
    try {
      device.allocate(2 ** 26, "f32");
    } catch (error) {
      console.log(error.name, error.message);
    }
    device.close();`;
  const [first, second] = (await run(refuse(4096) + work(2) + size)).split("\n");
  assertEquals(first, "2 3");
  assert(/^DeviceError cpu: a storage of 256 MiB does not fit: \d+ MiB of 256 MiB/.test(second), second);
});

Deno.test("if the system refuses the memory that the threads need, creation throws", async () => {
  const { Memory } = WebAssembly;
  try {
    WebAssembly.Memory = function () {
      throw new RangeError("could not allocate memory");
    } as unknown as typeof Memory;
    await assertRejects(() => CpuDevice.create({ threads: 3 }), DeviceError, "cpu: the system refuses a memory of");
  } finally {
    WebAssembly.Memory = Memory;
  }
});

Deno.test("after three idle seconds the threads work again", async () => {
  const device = await createDevice("cpu", { threads: 3 });
  const values = normal(100_000), x = device.tensor(values, [100_000]);
  const before = await add(x, x).data();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  for (let i = 0; i < 100; i++) assertEquals(await add(x, x).data(), before);
  assertEquals(before, values.map((value) => 2 * value));
  device.close();
});

Deno.test("600,000 launches, more than there are launch numbers, each do all of their work once", async () => {
  const device = await createDevice("cpu", { threads: 3 }),
    one = device.tensor(new Float32Array(16384).fill(1), [16384]);
  const sum = device.tensor(new Float32Array(16384), [16384]);
  const thousand = device.capture(() => {
    for (let i = 0; i < 1000; i++) launch(accumulate, { x: one, sum });
  });
  for (let i = 1; i < 600; i++) thousand.replay();
  assertEquals(new Set(await sum.data()), new Set([600_000]));
  thousand.dispose();
  device.close();
});

Deno.test("a kernel that fails on any thread is reported, and the next launch works", async () => {
  const device = await createDevice("cpu", { threads: 3 }), x = device.tensor(new Float32Array(100_000), [100_000]);
  const failing = kernel({
    name: "failing",
    reads: { x: f32("n") },
    writes: { y: f32("n") },
    reference() {},
    // The instruction 0 (unreachable) traps in the last chunk, which any thread may take.
    cpu: { tasks: ({ n }) => n, emit: (f, { end, n }) => f.when(f.i32.eq(end, n), () => f.emit(0)) },
  });
  for (let i = 0; i < 20; i++) {
    assertThrows(() => launch(failing, { x }), DeviceError, "failing: the kernel failed on one of 3 threads");
    assertEquals(new Set(await add(x, x).data()), new Set([0]));
  }
  device.close();
});

Deno.test("a closed device does not compute, but its results can be read and freed", async () => {
  for (const name of ["reference", "cpu"]) {
    const device = await openDevice(name, { threads: 2 }), x = device.tensor([1, 2], [2]), y = add(x, x);
    device.close();
    device.close();
    assertThrows(() => add(x, x), DeviceError, "the device is closed");
    assertThrows(() => device.tensor([1], [1]), DeviceError, `${name}: the device is closed`);
    assertEquals([...await y.data()], [2, 4]);
    for (const tensor of [x, y]) tensor.dispose();
    assertEquals(device.memory().tensors, 0);
  }
});
