/** Attention's shaders in two versions: for heads whose width is a multiple of 4, and for any. */
import type { GpuPass } from "../../src/kernel.ts";

type Sizes = Record<"B" | "T" | "heads" | "width", number>;

/** An operand that is read, written or added to by fours. */
interface Fours {
  readonly binding: number;
  readonly shape: string;
  readonly access: "read" | "write" | "add";
}

/**
 * The passes of a shader; a launch takes one of them. To the source it adds the operands' bindings, and for each a function
 * `NAME_four(at, count)`, or `NAME_put_four(at, count, values)`, for the elements from `at` on, of which `count` are there.
 */
export function byFours(pass: GpuPass<Sizes>, operands: Readonly<Record<string, Fours>>): GpuPass<Sizes>[] {
  return [true, false].map((whole) => ({
    ...pass,
    source: pass.source + Object.entries(operands).map(([name, operand]) => functions(name, operand, whole)).join(""),
    workgroups: (sizes) => takesFours(sizes) === whole ? pass.workgroups(sizes) : 0,
  }));
}

/** Few tokens are little work, and not worth the compilation of another version. */
const takesFours = ({ T, width }: Sizes) => width % 4 === 0 && T >= 128;

function functions(name: string, { binding, shape, access }: Fours, whole: boolean): string {
  const mode = access === "read" ? "read" : "read_write", type = whole ? "vec4<f32>" : "f32";
  const before = (at: string) => access === "add" ? `select(${name}[${at}], ${type}(), fresh_${name}) + ` : "";
  const four = whole ? `return ${name}[at / 4u];` : `var values = vec4f();
  for (var i = 0u; i < min(count, 4u); i++) { values[i] = ${name}[at + i]; }
  return values;`;
  const put = whole
    ? `${name}[at / 4u] = ${before("at / 4u")}values;`
    : `for (var i = 0u; i < min(count, 4u); i++) { ${name}[at + i] = ${before("at + i")}values[i]; }`;
  return `
@group(0) @binding(${binding}) var<storage, ${mode}> ${name}: array<${type}>; // ${shape}
${access === "add" ? `override fresh_${name}: bool = false; // ${name} holds garbage: write instead of adding\n` : ""}${
    access === "read"
      ? `fn ${name}_four(at: u32, count: u32) -> vec4f {
  ${four}
}`
      : `fn ${name}_put_four(at: u32, count: u32, values: vec4f) {
  ${put}
}`
  }
`;
}
