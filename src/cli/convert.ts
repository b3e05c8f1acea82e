/**
 * Turns a model into another program's format. In the repository this is `deno task convert`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/convert --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./convert_command.ts")).convert);
