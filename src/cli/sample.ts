/** `deno task sample`, which is sample_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./sample_command.ts")).sample);
