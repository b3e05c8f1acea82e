/**
 * Shows the tokens of a text, or the text of tokens. In the repository this is `deno task tokenize`, elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-env jsr:@nanogpt/ts/cli/tokenize --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./tokenize_command.ts")).tokenize);
