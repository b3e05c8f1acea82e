/**
 * Chats with a model that was fine-tuned on conversations.
 *
 * In the repository, run `deno task chat`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/chat --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./chat_command.ts")).chat);
