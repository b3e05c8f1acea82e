/**
 * Measures how well a model predicts a text, or how well its head labels rows.
 *
 * In the repository, run `deno task eval`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/eval --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./eval_command.ts")).evalCommand);
