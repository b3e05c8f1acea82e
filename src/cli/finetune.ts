/** `deno task finetune`, which is finetune_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./finetune_command.ts")).finetune);
