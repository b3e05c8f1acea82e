/** Imports nothing: Node links every import before it runs a line, and cannot link what a command imports. */

/** Runs a command with the process's arguments. Outside Deno, says in one line that it needs Deno. */
export async function start(load: () => Promise<(args: string[]) => Promise<number>>): Promise<void> {
  if ("Deno" in globalThis) {
    const [{ runCommand }, command] = await Promise.all([import("./command.ts"), load()]);
    return await runCommand(command);
  }
  console.error("error: the commands need Deno, https://deno.com; Node and browsers import the library, @nanogpt/ts");
  process.exitCode = 1;
}
