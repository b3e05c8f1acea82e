/**
 * Writes text with a model. In the repository this is `deno task sample`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/sample --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./sample_command.ts")).sample);
