/** `deno task data`, which is data_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./data_command.ts")).data);
