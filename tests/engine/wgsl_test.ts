/**
 * Checks every shader: that its bindings and the fields of Params have the names, types and order of its kernel's
 * declaration, because the device binds by position, and a mistake would be silent; that its text comes from its
 * module; and that it compiles on the WebGPU devices that are available.
 */
import { assert, assertEquals } from "@std/assert";
import { shaderError } from "../../src/device/shader_errors.ts";
import { WebGPUDevice } from "../../src/device/webgpu.ts";
import { type AnyKernel, type AnyPass, bindSizes } from "../../src/kernel.ts";
import { devices } from "../testing.ts";

const folder = new URL("../../kernels/", import.meta.url);

/** All kernels that modules under kernels/ export, including kernels inside of records. */
async function* kernels(): AsyncGenerator<AnyKernel> {
  const seen = new Set<unknown>();
  function* within(value: unknown): Generator<AnyKernel> {
    if (typeof value !== "object" || value === null || seen.has(value)) return;
    seen.add(value);
    if ("operands" in value && "reference" in value) yield value as AnyKernel;
    else for (const item of Object.values(value)) yield* within(item);
  }
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!isDirectory) continue;
    for await (const file of Deno.readDir(new URL(`${name}/`, folder))) {
      if (/^(kernel|cached)\.ts$/.test(file.name)) {
        yield* within({ ...await import(new URL(`${name}/${file.name}`, folder).href) });
      }
    }
  }
}

/** The shaders that modules under kernels/ export, by the file name of the module. */
async function shaderTexts(): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!isDirectory) continue;
    for await (const file of Deno.readDir(new URL(`${name}/`, folder))) {
      if (!file.name.endsWith(".wgsl.ts")) continue;
      assert(!texts.has(file.name), `two shaders are called ${file.name}: messages name them without their folder`);
      const { default: text } = await import(new URL(`${name}/${file.name}`, folder).href);
      texts.set(file.name, text);
    }
  }
  return texts;
}

/** Compiles a pass with every combination of its has_, fresh_ and bf16_ constants, and reports all errors together. */
async function compile({ gpu }: WebGPUDevice, pass: AnyPass): Promise<void> {
  const flags = Array.from(
    withoutComments(pass.source).matchAll(/override\s+((?:has|fresh|bf16)_\w+)/g),
    ([, flag]) => flag,
  );
  const errors: (string | undefined)[] = [];
  for (let variant = 0; variant < 1 << flags.length; variant++) {
    const constants = Object.fromEntries(flags.map((flag, i) => [flag, variant >> i & 1]));
    gpu.pushErrorScope("validation");
    const module = gpu.createShaderModule({ code: pass.source });
    gpu.createComputePipeline({ layout: "auto", compute: { module, entryPoint: pass.entry, constants } });
    const error = await gpu.popErrorScope();
    if (error) {
      errors.push(
        await shaderError(module, pass) ?? `${pass.entry} with ${JSON.stringify(constants)}: ${error.message}`,
      );
    }
  }
  assert(errors.length === 0, errors.join("\n"));
}

const withoutComments = (source: string) => source.replaceAll(/\/\/.*$/gm, "").replaceAll(/\/\*[^]*?\*\//g, "");

/**
 * Bindings with another name than their operand, by the names in the shader: some operands have names that WGSL
 * reserves, or that the shader's functions give to their parameters and variables.
 */
const OPERANDS: Readonly<Record<string, string>> = {
  ...{ left: "a", right: "b", input: "x", source: "from", target_slot: "to", row_statistics: "statistics" },
};

function checkBindings(kernel: AnyKernel, pass: AnyPass): void {
  const aliases = pass.source.matchAll(/^alias (\w+) = ([^;]+);/gm).map(([, name, type]) => [name, type] as const);
  const source = [...aliases].reduce(
    (source, [name, type]) => source.replaceAll(`array<${name}>`, `array<${type}>`),
    withoutComments(pass.source),
  );
  const what = `${kernel.name}: ${pass.entry}`;
  const fields = source.match(/struct Params \{([^}]*)\}/)?.[1] ?? "";
  const sizes = Object.keys(bindSizes(kernel, {}));
  assertEquals(
    [...fields.matchAll(/(\w+)\s*:\s*(\w+)/g)].map(([, name, type]) => `${name}: ${type}`),
    [
      ...sizes.map((name) => `${name}: u32`),
      ...Object.entries(kernel.params).map(([name, type]) => `${name}: ${type}`),
    ],
    `${what}: Params`,
  );
  const declared = kernel.operands.map((
    { name, role, dtype, also },
  ) => [name, role === "reads" ? "read" : "read_write", also ? "u32" : dtype]);
  const bindings = source.matchAll(
    /@binding\((\d+)\)\s*var<storage,\s*(\w+)>\s*(\w+)\s*:\s*array<(?:vec[24]<)?(\w+)>/g,
  );
  for (const [, binding, access, name, type] of bindings) {
    const [operand, role, dtype] = declared[Number(binding) - 1] ?? [name, "read_write", "f32"]; // the last: workspace
    assert([name, OPERANDS[name]].includes(operand), `${what}: binding ${binding} is ${name}, and not ${operand}`);
    assertEquals(access, role, `${what}: binding ${binding}, ${name}`);
    if (declared[Number(binding) - 1]) {
      assert(type === dtype || type === "u32", `${what}: ${name} is ${type}`); // u32 holds the bits of any type
    }
  }
  const passes = [kernel.gpu ?? []].flat() as AnyPass[], bound = kernel.operands.length;
  const all = bound + Number(passes.some(({ workspace }) => workspace));
  assert(all <= 8, `${what} binds ${all} storage buffers, and not every adapter has more than 8`);
  for (const { name, optional, also } of kernel.operands) {
    const bf16 = new RegExp(`override\\s+bf16_${name}\\b`).test(source);
    if (also) assert(bf16, `${what}: ${name} may be bf16, and there is no bf16_${name}`);
    const flag = new RegExp(`override\\s+has_${name}\\b`).test(source);
    if (flag) assertEquals(optional, true, `${what}: has_${name} of an operand that is always there`);
  }
}

/**
 * Matches the lines of a shader that a pass may replace. All other lines must be equal to the file's, so that messages
 * have the right line numbers.
 */
const REPLACED = /^(@group\(0\) @binding\(\d\) )?(const|alias|struct|fn|var<)/;

function checkFile({ source, entry, file = `${entry}.wgsl.ts` }: AnyPass): void {
  const text = texts.get(file);
  assert(text !== undefined, `there is no ${file} under kernels/`);
  const expected = text.split("\n"), lines = source.split("\n");
  assertEquals(lines.length, expected.length, `${file}: lines`);
  for (const [i, line] of lines.entries()) {
    assert(line === expected[i] || REPLACED.test(expected[i]), `${file}:${i + 1} is not a line to replace: ${line}`);
  }
}

const all = (await devices()).filter(({ device }) => device instanceof WebGPUDevice);
const texts = await shaderTexts(), used = new Set<string>();

for await (const kernel of kernels()) {
  for (const [i, pass] of ([kernel.gpu ?? []].flat() as AnyPass[]).entries()) {
    const which = `${kernel.name}: ${pass.entry}${i ? `, pass ${i + 1}` : ""}`;
    used.add(pass.file ?? `${pass.entry}.wgsl.ts`);
    Deno.test(`${which}: the bindings and Params match the declaration`, () => checkBindings(kernel, pass));
    Deno.test(`${which}: the source is its module's, except for lines that may be replaced`, () => checkFile(pass));
    for (const { name, device } of all) {
      Deno.test(`${which} compiles (${name})`, () => compile(device as WebGPUDevice, pass));
    }
  }
}

for (const [file, source] of texts) {
  const entries = [...source.matchAll(/@compute[^]*?\bfn (\w+)\(/g)].map(([, entry]) => entry);
  Deno.test(`${file} has an entry point, and a pass uses it`, () => {
    assert(entries.length > 0, "no entry point");
    assert(used.has(file), "no kernel has a pass with it");
  });
  for (const { name, device } of all) {
    Deno.test(`${file} compiles as it stands (${name})`, async () => {
      for (const entry of entries) {
        await compile(device as WebGPUDevice, { source, entry, file, workgroups: () => 1 });
      }
    });
  }
}
