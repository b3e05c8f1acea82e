/**
 * Pastes the code of docs/adding_an_op.md, unchanged, into a copy of the repository and tests the op that it adds: on
 * the devices of this run, against the page's golden cases and finite differences.
 *
 * The fixture of the page's cases is adding_an_op.safetensors, so this test does not need PyTorch. If PyTorch is
 * installed, the test checks that the generator makes the same fixture. To rewrite it: `deno test -A
 * tests/golden/adding_an_op_test.ts -- --write`.
 *
 * If the repository has the op, its files cannot be pasted again, and these tests are skipped.
 */
import { assert, assertEquals } from "@std/assert";
import { devices, inFolder } from "../testing.ts";
import { copy, generate, hasTorch } from "./torch.ts";

const page = await Deno.readTextFile(new URL("../../docs/adding_an_op.md", import.meta.url));
/** The page's code blocks by file, in the page's order. The line above a block names its file. */
const blocks = page.matchAll(/^\*\*`([^`]+)`\*\*\n\n(`{3,})[^\n]*\n([^]*?)\n\2$/gm)
  .map(([, file, , code]) => [file, code] as const).toArray();
const FIXTURE = new URL("adding_an_op.safetensors", import.meta.url);
const exists = (path: string) => Deno.stat(new URL(`../../${path}`, import.meta.url)).then(() => true, () => false);
const test = await exists("kernels/rms_norm") ? Deno.test.ignore : Deno.test;

/**
 * Runs `body` in a copy of the files that ops and their tests need, with the page's files created and its lines
 * appended.
 */
async function pasted(body: (folder: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    for (
      const path of [
        "mod.ts",
        "deno.json",
        "links",
        "src",
        "kernels",
        "data/grammar",
        "data/shakespeare_char",
        "config",
        "scripts/plain_words.ts", // the lint's plugin
      ]
    ) {
      await copy(path, folder);
    }
    for (const path of ["testing.ts", "golden", "engine/finite_differences_test.ts", "engine/wgsl_test.ts"]) {
      await copy(`tests/${path}`, folder, (path) => /\.(ts|py)$|manifest\.json$/.test(path));
    }
    for (const [file, code] of blocks) {
      await Deno.mkdir(`${folder}/${file}`.replace(/\/[^/]*$/, ""), { recursive: true });
      await Deno.writeTextFile(`${folder}/${file}`, `${code}\n`, { append: true });
    }
    await Deno.mkdir(`${folder}/tests/golden/fixtures`, { recursive: true });
    await Deno.copyFile(FIXTURE, `${folder}/tests/golden/fixtures/ops_rmsNorm.safetensors`).catch(() => {});
    await body(folder);
  });
}

async function deno(folder: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: folder,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).output();
  const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `deno ${args.join(" ")}:\n${out}\n${error}`);
  return out;
}

const all = await devices();
test(`adding an op: the pasted code is correct (${all.map(({ name }) => name).join(", ")})`, () =>
  pasted(async (folder) => {
    const tests = ["golden/ops_test.ts", "engine/finite_differences_test.ts", "engine/wgsl_test.ts"];
    const args = [
      "test",
      "--allow-all",
      "--no-check",
      "--filter=/rmsNorm|rms_norm/",
      ...tests.map((path) => `tests/${path}`),
    ];
    const out = await deno(folder, ...args);
    const bindings =
      "rms_norm_backward_weight: rms_norm_backward_weight: the bindings and Params match the declaration";
    const some = [
      ...all.map(({ name }) => `rmsNorm [17,31] (${name})`),
      "rmsNorm [17,31] agrees with finite differences",
    ];
    for (const name of [...some, bindings]) assert(out.includes(`${name} ... ok`), `no test was ${name}:\n${out}`);
  }));

/** These tests do not depend on the mode that the tests run in, so they run in one mode only. */
if (all.some(({ name }) => name === "cpu narrow")) {
  test("adding an op: the page changes two files, and adds one file and one folder", async () => {
    const files = blocks.map(([file]) => file), there: string[] = [];
    for (const file of files) if (await exists(file)) there.push(file);
    assertEquals(there, ["src/ops/mod.ts", "tests/golden/model_op_cases.py"]);
    const places = new Set(files.map((file) => file.replace(/^kernels\/rms_norm\/.*/, "kernels/rms_norm/")));
    assertEquals([...places], ["kernels/rms_norm/", "src/ops/rms_norm.ts", ...there]);
  });

  test("adding an op: the page's code is formatted and lint-free, its types are correct, and its example runs", () =>
    pasted(async (folder) => {
      const files = blocks.map(([file]) => file).filter((file) => file.endsWith(".ts"));
      await deno(folder, "fmt", "--check", ...files);
      await deno(folder, "lint", ...files);
      await deno(folder, "check", ...files);
      assert((await deno(folder, "test", "--doc", "--no-check", "src/ops/rms_norm.ts")).includes("1 passed"));
    }));

  const torch = await hasTorch();
  test({
    name: "adding an op: the generator makes adding_an_op.safetensors of the page's cases",
    ignore: !torch,
    fn: () =>
      pasted(async (folder) => {
        const path = `${folder}/tests/golden/fixtures/ops_rmsNorm.safetensors`;
        if (Deno.args.includes("--write")) await Deno.remove(path).catch(() => {});
        await generate(folder, "rmsNorm"); // does not rewrite an unchanged file
        if (Deno.args.includes("--write")) await Deno.copyFile(path, FIXTURE);
        const [made, committed] = [await Deno.readFile(path), await Deno.readFile(FIXTURE)];
        assertEquals(made, committed, "the page's cases have changed: run this file with -- --write");
      }),
  });
}
