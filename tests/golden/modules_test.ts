/** Modules with weights from PyTorch: results, and gradients of inputs and weights. */
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { LayerNorm, Linear } from "../../src/nn/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose, assertShape, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface ModuleCase {
  readonly name: string;
  readonly module: "Linear" | "LayerNorm" | "CausalSelfAttention" | "MLP" | "Block";
  readonly config: GPTConfig;
}
interface Layer {
  forward(x: Tensor): Tensor;
  namedParameters(): Iterable<readonly [string, Tensor]>;
}

function make({ module, config }: ModuleCase, { device }: TestDevice): Layer {
  const { nEmbd, bias } = config;
  if (module === "Linear") return new Linear(nEmbd, nEmbd + 1, { bias, device });
  if (module === "LayerNorm") return new LayerNorm(nEmbd, { bias, device });
  const block = new GPT(config, { device }).transformer.h[0];
  return module === "Block" ? block : module === "MLP" ? block.mlp : block.attn;
}

async function check(on: TestDevice, fixture: Fixture<ModuleCase>, number: number) {
  const test = fixture.cases[number], { device } = on, { name } = test;
  const expected = (key: string) => fixture.get(`${number}.${key}`);
  const module = make(test, on);
  loadWeights(module, fixture, `${number}.w`);
  const x = device.tensor(expected("x").values, expected("x").shape, { requiresGrad: true });
  const out = module.forward(x);
  out.backward(device.tensor(expected("dout").values, expected("dout").shape));
  assertShape(out, expected("out").shape, name);
  assertClose(await out.data(), expected("out").values, limitOf(device, "modules"), name);
  for (const [key, tensor] of [["x", x] as const, ...module.namedParameters()]) {
    const { values } = expected(tensor === x ? "x.grad" : `w.${key}.grad`);
    assertClose(await tensor.grad!.data(), values, limitOf(device, "gradients", values), `${name}: gradient of ${key}`);
  }
}

const all = await devices(), fixture = readFixture<ModuleCase>("modules");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of all) Deno.test(`${name} (${on.name})`, () => check(on, fixture, number));
}
