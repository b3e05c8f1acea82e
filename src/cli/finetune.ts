/**
 * Fine-tunes a model for a task: conversations, labels, preferences or rewards.
 *
 * In the repository, run `deno task finetune`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/finetune --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./finetune_command.ts")).finetune);
