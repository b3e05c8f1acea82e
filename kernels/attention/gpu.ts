/** Attention's shaders in two versions: one for heads whose width is a multiple of 4, one for any width. */
import { type GpuPass, withLines } from "../../src/kernel.ts";

type Sizes = Record<"B" | "T" | "heads" | "width", number>;

/**
 * Returns two passes for one shader; each launch runs one of them. The shader's text as it stands reads and writes the
 * operands four elements at a time. In the version for any width, the operands are bound as single elements, and the
 * functions `NAME_four(at, count)` and `NAME_put_four(at, count, values)` loop over min(count, 4) elements.
 *
 * @param operands how the shader accesses each: read, written, or added to
 */
export function byFours(
  pass: GpuPass<Sizes>,
  operands: Readonly<Record<string, "read" | "write" | "add">>,
): GpuPass<Sizes>[] {
  return [true, false].map((whole) => ({
    ...pass,
    get source() {
      return whole ? pass.source : oneByOne(pass.source, operands);
    },
    workgroups: (sizes) => takesFours(sizes) === whole ? pass.workgroups(sizes) : 0,
  }));
}

/** With few tokens there is little work, and compiling another version would not pay. */
const takesFours = ({ T, width }: Sizes) => width % 4 === 0 && T >= 128;

function oneByOne(source: string, operands: Parameters<typeof byFours>[1]): string {
  for (const [name, access] of Object.entries(operands)) {
    const each = "for (var i = 0u; i < min(count, 4u); i++)",
      before = access === "add" ? `select(${name}[at + i], 0.0, fresh_${name}) + ` : "";
    source = source.replace(new RegExp(`(> ${name}: array<)vec4<f32>`), "$1f32");
    source = withLines(
      source,
      access === "read"
        ? {
          [`${name}_four`]: `fn ${name}_four(at: u32, count: u32) -> vec4f { ` +
            `var values = vec4f(); ${each} { values[i] = ${name}[at + i]; } return values; }`,
        }
        : {
          [`${name}_put_four`]: `fn ${name}_put_four(at: u32, count: u32, values: vec4f) { ` +
            `${each} { ${name}[at + i] = ${before}values[i]; } }`,
        },
    );
  }
  return source;
}
