/**
 * Shows the rows of a file to tune on as the model will see them. In the repository this is `deno task data`,
 * elsewhere:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/data --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./data_command.ts")).data);
