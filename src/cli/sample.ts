/**
 * Writes text with a model.
 *
 * In the repository, run `deno task sample`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/sample --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./sample_command.ts")).sample);
