/**
 * Converts a model to another program's format.
 *
 * In the repository, run `deno task convert`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/convert --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./convert_command.ts")).convert);
