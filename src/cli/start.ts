/**
 * What an entry of the command line imports, and all that it imports: Node links every import before it runs a line, and
 * fails at one that only Deno has.
 */

/** Runs a command with the process's arguments. Outside Deno, says in one line that it needs Deno. */
export async function start(load: () => Promise<(args: string[]) => Promise<number>>): Promise<void> {
  if ("Deno" in globalThis) return await (await import("./command.ts")).runCommand(await load());
  console.error("error: the commands need Deno, https://deno.com; Node and browsers import the library, @nanogpt/ts");
  process.exitCode = 1;
}
