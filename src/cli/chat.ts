/**
 * Talks with a model that was tuned to chats. In the repository this is `deno task chat`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/chat --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./chat_command.ts")).chat);
