import { assertEquals, assertThrows } from "@std/assert";
import { noGrad, record } from "../../src/engine/autograd.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { launch } from "../../src/engine/launch.ts";
import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { add } from "../../src/ops/add.ts";
import { layerNorm } from "../../src/ops/layer_norm.ts";
import { mul } from "../../src/ops/mul.ts";

const device = new ReferenceDevice();
const leaf = (values: number[], shape: number[] = []) => device.tensor(values, shape, { requiresGrad: true });

Deno.test("gradients add up if a tensor is used twice, and do not share memory", async () => {
  const a = leaf([1]), b = leaf([2]), seed = leaf([1]);
  add(a, b).backward(seed);
  add(a, a).backward(seed);
  assertEquals(new Set([a.grad!.storage.block, b.grad!.storage.block, seed.storage.block]).size, 3);
  assertEquals([await a.grad!.item(), await b.grad!.item(), await seed.item()], [3, 1, 1]);
});

Deno.test("y = ((a·a) + a) · a has the gradient 3a² + 2a", async () => {
  const a = leaf([3]);
  mul(add(mul(a, a), a), a).backward();
  assertEquals(await a.grad!.item(), 3 * 9 + 2 * 3);
});

Deno.test("a second backward through the same tape, or backward without a tape, throws", () => {
  const a = leaf([1]), shared = add(a, a), y = add(shared, a);
  y.backward();
  assertThrows(() => y.backward(), TypeError, "Cannot apply backward to []: add was consumed by an earlier backward");
  assertThrows(() => add(shared, a).backward(), TypeError, "add was consumed");
  assertThrows(() => noGrad(() => add(a, a)).backward(), TypeError, "requires no gradient");
  assertThrows(
    () => add(leaf([1, 2], [2]), a).backward(),
    Error,
    "Cannot apply backward to [2]: with 2 elements it needs a seed",
  );
});

Deno.test("if a derivative is missing, the message names the op, and no gradients remain", () => {
  const a = leaf([1]),
    x = record("nothing", device.tensor([1], []), [a], [], () => {
      throw new TypeError("nothing has no derivative");
    });
  const y = add(x, x), before = device.memory().tensors;
  assertThrows(() => y.backward(), TypeError, "nothing has no derivative");
  assertEquals(device.memory().tensors, before);
});

Deno.test("backward throws if a saved tensor was changed in place", () => {
  const a = leaf([1, 2], [2]), y = mul(a, a), x = device.tensor([1, 1], [2]);
  launch(accumulate, { x, sum: a });
  assertThrows(() => y.backward(x), TypeError, "that mul had saved was changed in place");
});

Deno.test("noGrad rejects an asynchronous body", () => {
  assertThrows(() => noGrad(async () => await Promise.resolve(1)), TypeError, "must not be asynchronous");
});

Deno.test("a graph of 20,000 nodes is walked without recursion", async () => {
  const a = leaf([1]);
  let y = a;
  using scope = device.scope();
  for (let i = 0; i < 20000; i++) y = add(y, a);
  scope.keep(y);
  y.backward();
  scope[Symbol.dispose]();
  assertEquals(await a.grad!.item(), 20001);
});

Deno.test("the tape outlives the scope that made it, and frees its tensors when consumed or abandoned", () => {
  const weight = leaf([1, 2, 3], [3]), x = leaf([1, 5, 2, 0, 3, 1], [2, 3]);
  const before = device.memory().bytes,
    make = () => {
      using scope = device.scope();
      return scope.keep(mul(layerNorm(mul(x, x), weight), x));
    };
  const y = make(), held = device.memory().bytes;
  if (held <= before) throw new Error("the tape holds nothing");
  y.backward(device.tensor([1, 1, 1, 1, 1, 1], [2, 3]));
  y.dispose();
  const gradients = device.memory().bytes;
  make().dispose(); // the tape is freed without a backward
  assertEquals(device.memory().bytes, gradients);
});
