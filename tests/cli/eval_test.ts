/** `deno task eval` in its own process. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { table } from "../../src/cli/eval_command.ts";
import { saveNanoGPT } from "../../src/checkpoint/nanogpt_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";

async function run(args: string[]) {
  const main = new URL("../../src/cli/eval.ts", import.meta.url).pathname;
  const env = { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" };
  const options = [
    "run",
    "--no-prompt",
    "--no-check",
    "--allow-read",
    "--allow-env=NANOGPT_DEBUG",
    main,
    "--threads=1",
    ...args,
  ];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: options, env }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

Deno.test("eval prints perplexity and bits per byte of a run and of a ckpt.pt, and refuses invalid flags", async () => {
  const folder = await Deno.makeTempDir(), device = await createDevice("cpu", { threads: 1 });
  try {
    const tokenizer = new CharacterTokenizer([..." abcé"]);
    const model = new GPT({ vocabSize: 5, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 4 }, { device });
    const description = { flags: {}, model: { ...model.config }, vocabulary: tokenizer.toJSON() };
    const saved = await RunFolder.create(`${folder}/out`, description);
    await saved.save({ iter: 1, model: sources(model.namedParameters()), optimizer: [], state: {} }, { best: true });
    await saveNanoGPT(`${folder}/ckpt.pt`, model, { iter: 1, bestValLoss: 1 });
    await Deno.writeTextFile(`${folder}/text.txt`, "é ab cab ".repeat(10));
    const input = `--input=${folder}/text.txt`, out = `--out_dir=${folder}/out`;

    const { code, out: said, err } = await run([input, out, "--stride=3"]);
    assertEquals([code, err], [0, ""]);
    const value = (name: string) => Number(new RegExp(`^${name} +([\\d.,]+)`, "m").exec(said)![1].replaceAll(",", ""));
    assertAlmostEquals(value("perplexity"), 5, 0.1); // an untrained model: five tokens with equal probabilities
    assertAlmostEquals(value("loss"), Math.log(5), 0.02);
    assertEquals([value("tokens scored"), value("bytes of text")], [89, 100]);
    assertAlmostEquals(value("bits per byte"), value("loss") / Math.LN2 * 90 / 100, 1e-3);
    assertStringIncludes(said, "windows of 8 tokens, stride 3\n");
    const other = await run([input, `--init_from=${folder}/ckpt.pt`, `--tokenizer=${folder}/out`, "--stride=3"]);
    const figures = (text: string) => text.slice(text.indexOf("perplexity"), text.indexOf("Done"));
    assertEquals(figures(other.out), figures(said));

    assert((await run(["--help"])).out.includes("--max_length=0"));
    const cases: [number, string, string[]][] = [
      [2, "--input is missing", []],
      [2, "Unknown flag --strid: the nearest flag is --stride", ["--strid=1"]],
      [1, "Cannot read", ["--input=/none"]],
      [2, `No model "${folder}/none"`, [input, `--out_dir=${folder}/none`]],
      [2, "--max_length=9: expected at most the model's block size, 8", [input, out, "--max_length=9"]],
      [2, "--stride=9: expected at most the number of tokens in a window, 8", [input, out, "--stride=9"]],
      [1, "Not in the vocabulary of 5 characters", [`--input=${folder}/out/run.json`, out]],
    ];
    for (const [code, message, args] of cases) {
      const refused = await run(args);
      assertEquals([refused.code, refused.out.includes("perplexity ")], [code, false], `${args}: ${refused.err}`);
      assertStringIncludes(refused.err, message);
    }
  } finally {
    device.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("eval prints its results as a table", () => {
  assertEquals(table({ perplexity: 12.34567, loss: 2.5, bitsPerByte: 1, tokens: 12345, bytes: 45678 }), [
    "perplexity     12.3457",
    "loss           2.5000 nats per token",
    "bits per byte  1.0000",
    "tokens scored  12,345",
    "bytes of text  45,678",
  ]);
});
