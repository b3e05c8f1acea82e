/** What a shader's compiler says against it, with the file's name and the line. */
import type { AnyPass } from "../kernel.ts";

/**
 * The first error as `gelu.wgsl.ts:12:5: unresolved value 'y'`, and under it the line: some passes add lines of their own at the
 * file's end, which are not found by their number.
 *
 * @returns undefined where the compiler has nothing against it
 */
export async function shaderError(module: GPUShaderModule, pass: AnyPass): Promise<string | undefined> {
  const { messages } = await module.getCompilationInfo();
  const error = messages.find(({ type }) => type === "error");
  if (!error) return undefined;
  const file = pass.file ?? `${pass.entry}.wgsl.ts`, { lineNum, linePos } = error;
  if (lineNum === 0) return `${file}: ${inOneLine(error.message)}`; // it is about no place
  const line = pass.source.split("\n")[lineNum - 1]?.trim();
  return `${file}:${lineNum}:${linePos}: ${inOneLine(error.message)}\n  ${line}`;
}

/**
 * Dawn's messages are a line. wgpu's are a drawing of the place between what is wrong and, after `=`, why:
 * "Shader 'gelu' parsing error: no definition in scope for identifier: `y`\n  ┌─ wgsl:4:3\n …".
 */
function inOneLine(message: string): string {
  const [what, ...rest] = message.trim().split("\n").map((line) => line.trim());
  const why = rest.filter((line) => line.startsWith("= ")).map((line) => line.slice(2));
  return [what.replace(/^Shader ('.*' parsing|validation) error: /, ""), ...why].join(": ");
}
