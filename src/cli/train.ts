/**
 * Trains a GPT on a text, with nanoGPT's flags.
 *
 * In the repository, run `deno task train`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/train --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./train_command.ts")).train);
