import { CheckpointError } from "../errors.ts";

/** Why a request failed: of fetch's "error sending request for url (…): client error (Connect): …", the last part. */
export function innermost(error: unknown): string {
  return error instanceof Error && error.cause instanceof Error
    ? error.cause.message.split(": ").at(-1)!
    : reason(error);
}

/** Why the system refused a file: in its own words, without its numbers and paths. */
export function reason(error: unknown): string {
  if (error instanceof CheckpointError) return error.message;
  if (error instanceof Deno.errors.NotFound) return "no such file or folder";
  if (error instanceof Deno.errors.NotCapable) return `Deno has no permission (${error.message.split(",")[0]})`;
  return (error instanceof Error ? error.message : String(error)).split(/[\n:] | \(os error/)[0];
}
