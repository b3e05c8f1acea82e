/**
 * Long tests of the native tile: ten thousand products, five hundred rounds of creating and closing devices, and a
 * training run with nanoGPT's CPU settings, whose losses and checkpoints must equal the wide tile's. To run only
 * this file: `deno task test:long tests/long/native_test.ts`.
 */
import { assertEquals } from "@std/assert";
import { whyNoNative } from "../native/available.ts";
import { inFolder } from "../testing.ts";

const why = await whyNoNative(), ignore = why !== undefined, cwd = new URL("../../", import.meta.url);
if (ignore) console.log(`tests skipped (${why})`);

async function deno(args: string[], env: Record<string, string> = {}): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env, cwd }).output();
  if (!success) throw new Error([stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("\n"));
}

Deno.test({
  name: "native: 10,000 products have the wasm tile's bits, and 500 rounds of devices end well",
  ignore,
  fn: () =>
    deno(["test", "--no-prompt", "--no-check", "--allow-all", "tests/native"], {
      ...{ NANOGPT_NATIVE_PRODUCTS: "10000", NANOGPT_NATIVE_ROUNDS: "500" },
    }),
});

Deno.test({
  name: "native: 2,000 iterations have the losses and the checkpoint of the wide tile",
  ignore,
  fn: () =>
    inFolder(async (folder) => {
      const results = await Promise.all(["train", "train:native"].map(async (task, i) => {
        const out = `${folder}/${i}`;
        await deno(["task", task, "--dataset=grammar", `--out_dir=${out}`, "--threads=2"]);
        const lines = (await Deno.readTextFile(`${out}/metrics.jsonl`)).trim().split("\n").map((line) =>
          JSON.parse(line)
        );
        for (const line of lines) delete line.ms, delete line.tokens_per_second;
        const { last } = JSON.parse(await Deno.readTextFile(`${out}/run.json`));
        const files = ["model", "optimizer"].map((name) => Deno.readFile(`${out}/${last}/${name}.safetensors`));
        return { lines, files: await Promise.all(files) };
      }));
      const [wide, native] = results;
      assertEquals(native.lines, wide.lines);
      assertEquals(native.lines.length > 200, true, `${native.lines.length} lines`);
      native.files.forEach((file, i) => assertEquals(file.toHex() === wide.files[i].toHex(), true));
    }),
});
