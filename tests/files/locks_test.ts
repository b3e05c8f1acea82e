import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { CheckpointError } from "../../src/errors.ts";
import { exists } from "../../src/files/files.ts";
import { Lock } from "../../src/files/locks.ts";
import { inFolder } from "../testing.ts";

const refused = async (target: string, options?: Parameters<typeof Lock.take>[1]) => {
  const { message } = await assertRejects(() => Lock.take(target, options), CheckpointError) as Error;
  return message;
};
const age = (path: string, seconds: number) => Deno.utime(path, new Date(), new Date(Date.now() - 1000 * seconds));

Deno.test("a lock can be held only once, and its file is removed when it is released", () =>
  inFolder(async (folder) => {
    for (const [options, file] of [[{}, `${folder}/.lock`], [{ beside: true }, `${folder}.lock`]] as const) {
      {
        using _ = await Lock.take(folder, options);
        await age(file, 3600); // the lock is still held, because the system's lock counts and not the file's age
        const message = await refused(folder, options);
        assertMatch(message, /^\S+ is in use by process \d+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
        assert(message.startsWith(`${folder} is in use by process ${Deno.pid} since`), message);
      }
      assert(!await exists(file));
    }
  }));

Deno.test("only one of many simultaneous attempts gets a free lock", () =>
  inFolder(async (folder) => {
    for (const system of [true, false]) {
      const taken = await Promise.allSettled(Array.from({ length: 8 }, () => Lock.take(folder, { system })));
      const held = taken.filter((result) => result.status === "fulfilled");
      assertEquals(held.length, 1, `system: ${system}`);
      held[0].value[Symbol.dispose]();
    }
  }));

Deno.test("a killed process releases its lock, although the file stays", () =>
  inFolder(async (folder) => {
    const code = `import { Lock } from ${JSON.stringify(import.meta.resolve("../../src/files/locks.ts"))};
      const lock = await Lock.take(Deno.args[0]);
      console.log(Deno.pid);
      setInterval(() => lock, 1000);`;
    await Deno.writeTextFile(`${folder}/holder.ts`, code);
    const permissions = ["--no-prompt", "--allow-read", "--allow-write"];
    const args = ["run", "--no-check", ...permissions, `${folder}/holder.ts`, folder];
    const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "null" }).spawn();
    const reader = child.stdout.getReader(), process = new TextDecoder().decode((await reader.read()).value).trim();
    assertMatch(await refused(folder), new RegExp(`in use by process ${process} since`));
    child.kill("SIGKILL");
    await Promise.all([child.status, reader.cancel()]);
    assert(await exists(`${folder}/.lock`));
    using _ = await Lock.take(folder);
  }));

Deno.test("without the system's lock, a lock file is valid as long as it is updated", () =>
  inFolder(async (folder) => {
    const file = `${folder}/.lock`, entry = { id: "x", process: 7, since: "2026-01-02T03:04:05.678Z", system: false };
    const holder = () => Deno.writeTextFile(file, JSON.stringify(entry));
    const inUse = `${folder} is in use by process 7 since 2026-01-02 03:04:05 UTC`;
    for (const system of [true, false]) {
      await holder();
      await age(file, 25);
      assertEquals(await refused(folder, { system }), inUse);
      await age(file, 35);
      using _ = await Lock.take(folder, { system });
    }
    await holder();
    await Deno.writeTextFile(file, ""); // the file of a process that was killed before it wrote its entry
    using _ = await Lock.take(folder, { system: false });
  }));
