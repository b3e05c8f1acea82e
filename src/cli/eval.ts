/** `deno task eval`, which is eval_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./eval_command.ts")).evalCommand);
