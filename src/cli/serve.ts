/**
 * Serves models over HTTP with OpenAI's API.
 *
 * In the repository, run `deno task serve`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-sys --allow-env jsr:@nanogpt/ts/cli/serve --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./serve_command.ts")).serve);
