/**
 * Measures how well a model predicts a text, or labels rows. In the repository this is `deno task eval`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/eval --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./eval_command.ts")).evalCommand);
