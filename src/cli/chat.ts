/** `deno task chat`, which is chat_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./chat_command.ts")).chat);
