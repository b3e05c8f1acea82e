/**
 * Encodes a text as token ids, or decodes token ids to a text.
 *
 * In the repository, run `deno task tokenize`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-env jsr:@nanogpt/ts/cli/tokenize --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./tokenize_command.ts")).tokenize);
