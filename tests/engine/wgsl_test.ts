/** Each shader's bindings and Params against its kernel's declaration: the device binds by position, and a mistake is silent. */
import { assertEquals } from "@std/assert";
import { type AnyKernel, type AnyPass, bindSizes } from "../../src/kernel.ts";

const folder = new URL("../../kernels/", import.meta.url);

/** Every kernel that a module under kernels/ exports, also inside of records. */
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

const withoutComments = (source: string) => source.replaceAll(/\/\/.*$/gm, "").replaceAll(/\/\*[^]*?\*\//g, "");

for await (const kernel of kernels()) {
  const passes = [kernel.gpu ?? []].flat() as AnyPass[];
  passes.forEach((pass, i) =>
    Deno.test(`${kernel.name}: the bindings of ${pass.entry}${i ? `, pass ${i + 1}` : ""} are the declared ones`, () => {
      const source = withoutComments(pass.source), what = `${kernel.name}: ${pass.entry}`;
      const fields = source.match(/struct Params \{([^}]*)\}/)?.[1] ?? "";
      const sizes = Object.keys(bindSizes(kernel, {}));
      const scalar = { f32: "f32", i32: "i32" };
      assertEquals(
        [...fields.matchAll(/(\w+)\s*:\s*(\w+)/g)].map(([, , type]) => type),
        [...sizes.map(() => "u32"), ...Object.values(kernel.params).map((type) => scalar[type])],
        `${what}: Params {${fields}} for sizes ${sizes} and params ${Object.keys(kernel.params)}`,
      );
      const declared = kernel.operands.map(({ role, dtype }) => [role === "reads" ? "read" : "read_write", dtype]);
      const bindings = source.matchAll(
        /@binding\((\d+)\)\s*var<storage,\s*(\w+)>\s*(\w+)\s*:\s*array<(?:vec[24]<)?(\w+)>/g,
      );
      for (const [, binding, access, name, type] of bindings) {
        const [role, dtype] = declared[Number(binding) - 1] ?? ["read_write", "f32"]; // behind the operands: the workspace
        assertEquals(access, role, `${what}: binding ${binding}, ${name}`);
        if (declared[Number(binding) - 1]) {
          assertEquals([dtype, dtype === "i32" ? "u32" : dtype].includes(type), true, `${what}: ${name} is ${type}`);
        }
      }
      for (const { name, optional } of kernel.operands) {
        const flag = new RegExp(`override\\s+has_${name}\\b`).test(source);
        if (flag) assertEquals(optional, true, `${what}: has_${name} of an operand that is always there`);
      }
    })
  );
}
