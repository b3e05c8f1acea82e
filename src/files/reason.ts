import { CheckpointError } from "../errors.ts";
import { codeOf } from "./system.ts";

/** Why a request failed: the last part of fetch's message "error sending request for url (…): client error (…): …". */
export function innermost(error: unknown): string {
  return error instanceof Error && error.cause instanceof Error
    ? error.cause.message.split(": ").at(-1)!
    : reason(error);
}

/** Why a file operation failed, in the system's words without error numbers and paths. */
export function reason(error: unknown): string {
  if (error instanceof CheckpointError) return error.message;
  if (codeOf(error) === "ENOENT") return "no such file or folder";
  if (!(error instanceof Error)) return String(error).split(/[\n:] /)[0];
  if (error.name === "NotCapable") return `Deno has no permission (${error.message.split(",")[0]})`;
  const [, words] = /^E[A-Z0-9]+: (.+?), [a-z]+/.exec(error.message) ?? []; // Node: "EACCES: permission denied, open 'x'"
  return words ?? error.message.split(/[\n:] | \(os error/)[0];
}
