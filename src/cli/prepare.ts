/** `deno task prepare`, which is prepare_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./prepare_command.ts")).prepareCommand);
