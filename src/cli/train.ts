/** `deno task train`, which is train_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./train_command.ts")).train);
