/**
 * Starts a command. This module has no static imports: Node links all imports before it runs any code, and it cannot
 * link the imports of a command.
 */

/** Runs a command with the process's arguments. Outside Deno, prints one line that says that it needs Deno. */
export async function start(load: () => Promise<(args: string[]) => Promise<number>>): Promise<void> {
  if ("Deno" in globalThis) {
    const [{ runCommand }, command] = await Promise.all([import("./command.ts"), load()]);
    return await runCommand(command);
  }
  console.error(
    "error: the commands need Deno, https://deno.com; Node and browsers can import the library, @nanogpt/ts",
  );
  process.exitCode = 1;
}
