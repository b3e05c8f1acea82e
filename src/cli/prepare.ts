/**
 * Encodes a text as tokens to train on.
 *
 * In the repository, run `deno task prepare`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-env jsr:@nanogpt/ts/cli/prepare --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./prepare_command.ts")).prepareCommand);
