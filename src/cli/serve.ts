/** `deno task serve`, which is serve_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./serve_command.ts")).serve);
