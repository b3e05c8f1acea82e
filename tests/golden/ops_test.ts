/** Every op against PyTorch, forward and gradients. */
import type { Device } from "../../src/engine/device.ts";
import { assertClose, assertShape, devices } from "../testing.ts";
import type { Fixture } from "./fixtures.ts";
import { call, matrixOf, type OpCase, opFixtures, OPS } from "./op_cases.ts";
import { limitOf, tolerances } from "./tolerances.ts";

async function check(device: Device, fixture: Fixture<OpCase>, test: OpCase, number: number, laid?: string) {
  const limit = limitOf(device, test.kind);
  const { leaves, forward } = call(device, fixture, test, undefined, laid);
  const expected = fixture.get(`${number}.out`), dout = fixture.get(`${number}.dout`);
  // The second backward pass must add its gradients to the gradients of the first.
  for (const times of [1, 2]) {
    const out = forward();
    assertShape(out, expected.shape, `${test.name}, forward`);
    if (out.requiresGrad) out.backward(device.tensor(dout.values, dout.shape));
    assertClose(await out.data(), expected.values, limit, `${test.name}, forward`);
    for (const [name, leaf] of leaves) {
      if (!leaf.requiresGrad) continue;
      const what = `${test.name}, gradient of ${name.split(".")[1]}, ${times} times`;
      if (!leaf.grad) throw new Error(`${what}: missing`);
      assertShape(leaf.grad, leaf.shape, what);
      const scaled = fixture.get(`${name}.grad`).values.map((value) => times * value);
      assertClose(await leaf.grad.data(), scaled, { ...limit, atol: times * limit.atol }, what);
    }
  }
}

const all = await devices(), covered = new Set<string>(), kinds = new Set<string>();
for (const fixture of opFixtures()) {
  for (const [number, test] of fixture.cases.entries()) {
    covered.add(test.op);
    kinds.add(test.kind);
    for (const { name, device } of all) {
      Deno.test(`${test.name} (${name})`, () => check(device, fixture, test, number));
      const laid = device.panelWidth > 0 ? matrixOf(fixture, test) : undefined;
      if (laid) Deno.test(`${test.name}, in panels (${name})`, () => check(device, fixture, test, number, laid));
    }
  }
}

Deno.test("every op has golden cases", () => {
  const missing = OPS.filter((op) => !covered.has(op));
  if (missing.length > 0) throw new Error(`no case for ${missing}`);
});

Deno.test("the kind of every golden case is in tolerances.ts", () => {
  const wrong = [...kinds].filter((kind) => !Object.hasOwn(tolerances, kind));
  if (wrong.length > 0) {
    throw new Error(`${wrong} is not a kind: expected one of ${Object.keys(tolerances).join(", ")}`);
  }
});
