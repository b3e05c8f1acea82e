/**
 * Trains a GPT on a text, with nanoGPT's flags. In the repository this is `deno task train`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/train --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./train_command.ts")).train);
