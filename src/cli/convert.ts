/** `deno task convert`, which is convert_command.ts. */
import { start } from "./start.ts";
await start(async () => (await import("./convert_command.ts")).convert);
