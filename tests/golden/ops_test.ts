/** Every op, forward and gradients, against PyTorch. */
import * as ops from "../../src/ops/mod.ts";
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose, assertShape, devices } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf, type OpClass } from "./tolerances.ts";

/** A call; {"tensor": NAME} among the arguments stands for a tensor of the fixture, an `offset` for one of one element. */
interface OpCase {
  readonly name: string;
  readonly op: string;
  readonly kind: OpClass;
  readonly args: readonly unknown[];
}

const FILES = Array.from(Deno.readDirSync(new URL("fixtures/", import.meta.url)), ({ name }) => name)
  .map((name) => name.match(/^ops_(.*)\.safetensors$/)?.[1]).filter((name) => name !== undefined).sort();

function call(device: Device, fixture: Fixture<OpCase>, { op, args }: OpCase) {
  const leaves = new Map<string, Tensor>();
  const decode = (arg: unknown): unknown => {
    if (Array.isArray(arg)) return arg.map(decode);
    if (!(arg instanceof Object)) return arg;
    if (!("tensor" in arg)) {
      return Object.fromEntries(
        Object.entries(arg).map(([key, value]) => [
          key,
          key === "offset" ? device.tensor([value | 0], [1], { dtype: "i32" }) : decode(value),
        ]),
      );
    }
    const name = String(arg.tensor), { values, shape, dtype } = fixture.get(name);
    const requiresGrad = fixture.tensors.has(`${name}.grad`);
    const leaf = leaves.get(name) ??
      device.tensor(values, shape, { dtype: dtype === "i32" ? "i32" : "f32", requiresGrad });
    leaves.set(name, leaf);
    return leaf;
  };
  const decoded = args.map(decode);
  const run = (ops as unknown as Record<string, (...args: unknown[]) => Tensor>)[op];
  if (!run) throw new Error(`src/ops/mod.ts exports no ${op}`);
  return { leaves, forward: () => run(...decoded) };
}

async function check(device: Device, fixture: Fixture<OpCase>, test: OpCase, number: number) {
  const limit = limitOf(device, test.kind);
  const { leaves, forward } = call(device, fixture, test);
  const expected = fixture.get(`${number}.out`), dout = fixture.get(`${number}.dout`);
  // The second backward meets gradients that are there, and adds.
  for (const times of [1, 2]) {
    const out = forward();
    assertShape(out, expected.shape, `${test.name}, forward`);
    out.backward(device.tensor(dout.values, dout.shape));
    assertClose(await out.data(), expected.values, limit, `${test.name}, forward`);
    for (const [name, leaf] of leaves) {
      if (!leaf.requiresGrad) continue;
      const what = `${test.name}, gradient of ${name.split(".")[1]}, ${times} times`;
      if (!leaf.grad) throw new Error(`${what}: there is none`);
      assertShape(leaf.grad, leaf.shape, what);
      const scaled = fixture.get(`${name}.grad`).values.map((value) => times * value);
      assertClose(await leaf.grad.data(), scaled, { ...limit, atol: times * limit.atol }, what);
    }
  }
}

const all = await devices(), covered = new Set<string>();
for (const file of FILES) {
  const fixture = readFixture<OpCase>(`ops_${file}`);
  for (const [number, test] of fixture.cases.entries()) {
    covered.add(test.op);
    for (const { name, device } of all) {
      Deno.test(`${test.name} (${name})`, () => check(device, fixture, test, number));
    }
  }
}

Deno.test("every op has golden cases", () => {
  const elsewhere = ["cachedAttention"]; // the model's logits with a key-value cache
  const missing = Object.keys(ops).filter((op) => !covered.has(op) && !elsewhere.includes(op));
  if (missing.length > 0) throw new Error(`no case for ${missing}`);
});
