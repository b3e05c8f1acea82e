/**
 * The playground's server: its errors, and the headers that allow threads. These tests need no browser, but they are
 * skipped without one, because Deno downloads esbuild for them.
 */
import { assertEquals } from "@std/assert";
import { ignore, serve } from "./browser.ts";

for (const [flags, policy] of [[[], "require-corp"], [["--no-isolation"], null]] as const) {
  Deno.test({ name: `deno task browser ${flags}`, ignore }, async () => {
    await using server = await serve(flags);
    for (
      const [path, type] of [["", "html"], ["style.css", "css"], ["page.js", "javascript"], ["worker.js", "javascript"]]
    ) {
      const { status, headers, body } = await fetch(server.url + path);
      await body?.cancel();
      assertEquals([status, headers.get("content-type")], [200, `text/${type}; charset=utf-8`]);
      assertEquals(headers.get("cross-origin-embedder-policy"), policy);
      assertEquals(headers.get("cross-origin-opener-policy"), policy && "same-origin");
    }
    const missing = await fetch(`${server.url}serve.ts`);
    assertEquals([missing.status, await missing.text()], [404, "Page not found."]);
    const { port } = new URL(server.url);
    await assertRefused(
      `--port=${port}`,
      `--port=${port}: another program uses this port; --port=0 takes any free port`,
    );
  });
}

Deno.test({ name: "deno task browser: invalid flags", ignore }, async () => {
  await assertRefused("--port=x", "--port=x: expected a whole number from 0 to 65535");
  await assertRefused("--prot=1", "unknown flag --prot=1\nUsage: deno task browser [--port=8000] [--no-isolation]");
});

async function assertRefused(flag: string, message: string): Promise<void> {
  const command = new Deno.Command(Deno.execPath(), { args: ["task", "--quiet", "browser", flag], stderr: "piped" });
  const { code, stderr } = await command.output();
  assertEquals([code, new TextDecoder().decode(stderr)], [2, `error: ${message}\n`]);
}
