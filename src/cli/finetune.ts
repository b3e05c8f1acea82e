/**
 * Tunes a model to a task: chats, labels, preferences, rewards. In the repository this is `deno task finetune`,
 * elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/finetune --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./finetune_command.ts")).finetune);
