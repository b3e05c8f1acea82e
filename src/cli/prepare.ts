/**
 * Turns a text into tokens to train on. In the repository this is `deno task prepare`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-env jsr:@nanogpt/ts/cli/prepare --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./prepare_command.ts")).prepareCommand);
