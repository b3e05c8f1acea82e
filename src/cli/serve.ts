/**
 * Serves models over OpenAI's API. In the repository this is `deno task serve`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-sys --allow-env jsr:@nanogpt/ts/cli/serve --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./serve_command.ts")).serve);
