/**
 * Prints the rows of a file for `finetune` as the model will see them.
 *
 * In the repository, run `deno task data`. From anywhere else, run:
 *
 * ```sh
 * deno run --allow-read --allow-write --allow-net --allow-env jsr:@nanogpt/ts/cli/data --help
 * ```
 *
 * @module
 */
import { start } from "./start.ts";
await start(async () => (await import("./data_command.ts")).data);
