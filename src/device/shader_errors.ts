/** Formats the errors of a shader's compiler, with the file's name and the line. */
import type { AnyPass } from "../kernel.ts";

/**
 * Returns the first error, such as `gelu.wgsl.ts:12:5: unresolved value 'y'`, and below it the text of the line. The
 * text is needed because some passes append generated lines to the file's, so that the number alone does not lead to
 * the line.
 *
 * @returns undefined if there are no errors
 */
export async function shaderError(module: GPUShaderModule, pass: AnyPass): Promise<string | undefined> {
  const { messages } = await module.getCompilationInfo();
  const error = messages.find(({ type }) => type === "error");
  if (!error) return undefined;
  const file = pass.file ?? `${pass.entry}.wgsl.ts`, { lineNum, linePos } = error;
  if (lineNum === 0) return `${file}: ${inOneLine(error.message)}`; // an error without a position
  const line = pass.source.split("\n")[lineNum - 1]?.trim();
  return `${file}:${lineNum}:${linePos}: ${inOneLine(error.message)}\n  ${line}`;
}

/**
 * Joins a message to one line. Dawn's messages are one line. wgpu's start with the error, then draw the place in the
 * source, then give the reason after `=`:
 *
 *     Shader 'gelu' parsing error: no definition in scope for identifier: `y`
 *       ┌─ wgsl:4:3
 *       …
 */
function inOneLine(message: string): string {
  const [what, ...rest] = message.trim().split("\n").map((line) => line.trim());
  const why = rest.filter((line) => line.startsWith("= ")).map((line) => line.slice(2));
  return [what.replace(/^Shader ('.*' parsing|validation) error: /, ""), ...why].join(": ");
}
