/**
 * LoRA against PEFT: logits, loss, every gradient, ten AdamW steps, merging, and reading and writing PEFT's folders.
 */
import { assert, assertEquals } from "@std/assert";
import { AdamW } from "../../src/optim/adamw.ts";
import type { Device } from "../../src/engine/device.ts";
import { loadAdapter, saveAdapter } from "../../src/finetune/adapter.ts";
import { applyLora, type Lora, type LoraOptions } from "../../src/finetune/lora.ts";
import { SafetensorsFile } from "../../src/files/safetensors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, devices, inFolder, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface LoraCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly lora: LoraOptions;
  /** The folder that PEFT saved before the adapter was trained. */
  readonly folder: string | null;
  readonly learningRate: number;
  readonly betas: readonly [number, number];
  readonly weightDecay: number;
  readonly gradClip: number;
}

const FOLDERS = new URL("fixtures/lora/", import.meta.url).pathname;

function baseOf(device: Device, fixture: Fixture<LoraCase>, weights?: "bf16" | "q8_0"): GPT {
  const model = new GPT(fixture.cases[0].config, { device, weights });
  loadWeights(model, fixture, "w");
  return model;
}

function write(lora: Lora, fixture: Fixture<LoraCase>, prefix: string): void {
  const names = new Set([...fixture.tensors.keys()].filter((key) => key.startsWith(`${prefix}.`)));
  for (const [name, { storage, shape }] of lora.namedParameters()) {
    assert(names.delete(`${prefix}.${name}`), `PEFT has no ${name}`);
    const expected = fixture.get(`${prefix}.${name}`);
    assertEquals(shape, expected.shape, name);
    storage.device.write(storage, expected.values);
  }
  assertEquals([...names], [], "what PEFT has besides");
}

function ids(device: Device, fixture: Fixture<LoraCase>, key: string, step: number) {
  const { values, shape: [steps, B, T] } = fixture.get(key), size = values.length / steps;
  return device.tensor(values.slice(step * size, (step + 1) * size), [B, T], { dtype: "i32" });
}

function logitsOf(model: GPT, fixture: Fixture<LoraCase>) {
  using _ = model.device.scope();
  const tokens = ids(model.device, fixture, "tokens", 0);
  return model.forward(tokens, ids(model.device, fixture, "targets", 0)).logits.data();
}

async function trains({ device }: TestDevice, fixture: Fixture<LoraCase>) {
  const { name, lora: options, learningRate, betas, weightDecay, gradClip } = fixture.cases[0];
  const before = device.memory().tensors, model = baseOf(device, fixture), lora = applyLora(model, options);
  write(lora, fixture, "a");
  const trained = new Map([...lora.namedParameters()]);
  assertEquals(new Set(model.parameters({ trainable: true })), new Set(trained.values()));
  const optimizer = new AdamW(trained, { learningRate, betas, weightDecay }),
    losses: number[] = [],
    norms: number[] = [];
  for (let step = 0; step < 10; step++) {
    using output = device.scope();
    const { logits, loss } = model.forward(ids(device, fixture, "tokens", step), ids(device, fixture, "targets", step));
    loss.backward();
    for (const kept of [logits, loss]) output.keep(kept);
    output[Symbol.dispose]();
    losses.push(await loss.item());
    if (step === 0) {
      assertClose(await logits.data(), fixture.get("logits").values, limitOf(device, "logits"), `${name}: logits`);
      for (const [key, parameter] of trained) {
        const { values } = fixture.get(`g.${key}`);
        assertClose(await parameter.grad!.data(), values, limitOf(device, "gradients", values), `${name}: d ${key}`);
      }
    }
    logits.dispose();
    loss.dispose();
    optimizer.step({ gradClip });
    norms.push(await optimizer.gradNorm.item());
    optimizer.zeroGrad();
  }
  assertClose(losses, fixture.get("losses").values, limitOf(device, "loss"), `${name}: losses`);
  assertClose(norms, fixture.get("norms").values, limitOf(device, "norms"), `${name}: gradient norms`);
  for (const [key, parameter] of trained) {
    assertClose(await parameter.data(), fixture.get(`t.${key}`).values, limitOf(device, "trained"), `${name}: ${key}`);
  }
  optimizer.dispose();
  model.eval();
  assertClose(await logitsOf(model, fixture), fixture.get("after").values, limitOf(device, "logits"), `${name}: after`);
  lora.enabled = false;
  const base = await logitsOf(model, fixture);
  assertClose(base, fixture.get("disabled").values, limitOf(device, "logits"), `${name}: disabled`);
  lora.enabled = true;
  lora.merge();
  assertClose(
    await logitsOf(model, fixture),
    fixture.get("after").values,
    limitOf(device, "logits"),
    `${name}: merged`,
  );
  assert(![...model.namedParameters()].some(([key]) => /base_layer|lora_|token_adapter/.test(key)));
  model.dispose();
  assertEquals(device.memory().tensors, before);
}

/** An adapter on a base with rounded weights has the gradients of an adapter on an f32 base with the rounded values. */
async function overRounded({ device }: TestDevice, fixture: Fixture<LoraCase>, weights: "bf16" | "q8_0") {
  const rounded = baseOf(device, fixture, weights), exact = baseOf(device, fixture);
  const numbers = new Map(rounded.namedParameters());
  for (const [name, { storage }] of exact.namedParameters()) {
    device.write(storage, await numbers.get(name)!.data());
  }
  const gradients = await Promise.all([rounded, exact].map(async (model) => {
    const lora = applyLora(model, fixture.cases[0].lora);
    write(lora, fixture, "a");
    const { loss } = model.forward(ids(device, fixture, "tokens", 0), ids(device, fixture, "targets", 0));
    loss.backward();
    return await Promise.all(
      [...lora.namedParameters()].map(async ([name, { grad }]) => [name, await grad!.data()] as const),
    );
  }));
  for (const [i, [name, gradient]] of gradients[1].entries()) {
    assertClose(gradients[0][i][1], gradient, limitOf(device, "gradients", gradient), `${weights}: d ${name}`);
  }
  for (const model of [rounded, exact]) model.dispose();
}

async function readsAndWrites({ device }: TestDevice, fixture: Fixture<LoraCase>, name: string) {
  const model = baseOf(device, fixture), folder = FOLDERS + name, notes: string[] = [];
  const lora = await loadAdapter(folder, model, { onNote: (line) => notes.push(line) });
  assertEquals(notes, []);
  assertEquals(
    [...model.parameters({ trainable: true })].length,
    [...model.parameters()].length - [...lora.namedParameters()].length,
  );
  assertClose(await logitsOf(model, fixture), fixture.get("logits").values, limitOf(device, "logits"), name);
  await inFolder(async (temporary) => {
    await saveAdapter(`${temporary}/out`, lora);
    const [ours, theirs] = [`${temporary}/out`, folder];
    const read = async (path: string) => JSON.parse(await Deno.readTextFile(`${path}/adapter_config.json`));
    assertEquals(await read(ours), await read(theirs));
    using left = await SafetensorsFile.open(`${ours}/adapter_model.safetensors`);
    using right = await SafetensorsFile.open(`${theirs}/adapter_model.safetensors`);
    assertEquals(left.metadata, right.metadata);
    assertEquals(new Set(left.tensors.keys()), new Set(right.tensors.keys()));
    for (const [key, { shape }] of left.tensors) {
      assertEquals(shape, right.tensors.get(key)!.shape, key);
      assertEquals([...await left.readTensor(key)], [...await right.readTensor(key)], key);
    }
  });
  lora.remove();
  assertClose(
    await logitsOf(model, fixture),
    fixture.get("disabled").values,
    limitOf(device, "logits"),
    `${name}: removed`,
  );
  model.dispose();
}

const all = await devices();
for (const file of ["attention", "all_linear", "dropout", "modules_to_save", "tokens", "head"]) {
  const fixture = readFixture<LoraCase>(`lora/${file}`), [{ name, folder }] = fixture.cases;
  for (const on of all) {
    Deno.test(`LoRA, ${name}: ten steps, disabled, merged (${on.name})`, () => trains(on, fixture));
    if (folder) {
      Deno.test(`LoRA, ${name}: PEFT's folder is read and written (${on.name})`, () =>
        readsAndWrites(on, fixture, folder));
    }
    for (const weights of ["bf16", "q8_0"] as const) {
      Deno.test(`LoRA, ${name}: over ${weights} (${on.name})`, () => overRounded(on, fixture, weights));
    }
  }
}

const initial = readFixture<{ config: GPTConfig; seed: number; rank: number; targets: string[] }>("lora/initial");
for (const { name, device } of all.filter(({ name }) => name !== "reference")) {
  Deno.test(`LoRA's initial weights equal PEFT's for the same seed (${name})`, async () => {
    const { config, seed, ...options } = initial.cases[0];
    using model = new GPT(config, { device, initialize: false });
    const lora = applyLora(model, { ...options, generator: new RandomGenerator(seed) });
    for (const [key, parameter] of lora.namedParameters()) {
      const values = await parameter.data();
      if (key.includes("lora_B")) assert(values.every((value) => value === 0), key);
      else assertClose(values, initial.get(key).values, limitOf(device, "initial"), key);
    }
  });
}
