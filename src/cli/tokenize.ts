/** `deno task tokenize`, which is tokenize_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./tokenize_command.ts")).tokenize);
