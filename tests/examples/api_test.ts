/**
 * `examples/api.ts` with `serve`, each in its own process: the saved result can be loaded, and equals the served model.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { generate } from "../../src/generate/generate.ts";
import { GPT } from "../../src/gpt.ts";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { inFolder, readUntil, runCommand } from "../testing.ts";

const root = new URL("../../", import.meta.url), decoder = new TextDecoder();
const env = { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" };

function spawn(permissions: readonly string[], args: readonly string[], more: Record<string, string> = {}) {
  const all = ["run", "--no-prompt", "--no-check", ...permissions, ...args];
  const options = { args: all, cwd: root, env: { ...env, ...more }, stdout: "piped", stderr: "piped" } as const;
  return new Deno.Command(Deno.execPath(), options).spawn();
}

Deno.test("examples/api.ts: queries a model, fine-tunes it and saves it, and reports errors", () =>
  inFolder(async (folder) => {
    using device = await createDevice("cpu", { threads: 1 });
    const tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvwxyz .\n<|>_"], { special: ["<|endoftext|>"] });
    const sizes = { vocabSize: tokenizer.vocabSize, blockSize: 64, nLayer: 1, nHead: 2, nEmbd: 16 };
    await saveHuggingFace(new GPT(sizes, { device, seed: 5 }), `${folder}/letters`, { tokenizer });
    const rows = Array.from({ length: 24 }, (_, i) => ({ prompt: "say ", completion: i % 2 ? "yes." : "yes sir." }));
    await Deno.writeTextFile(`${folder}/rows.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
    const keys = `--keys=${folder}/keys.json`, { out: made } = await runCommand("serve", keys, "--new_key=test");
    const [key] = /sk-\S+/.exec(made)!;

    const flags = [keys, "--port=0", "--threads=1", `--model=${folder}/letters`, `--jobs=${folder}/jobs`];
    const sys = "--allow-sys=systemMemoryInfo,statfs";
    const server = spawn(
      ["--allow-read", "--allow-write", "--allow-net=127.0.0.1", sys, "--allow-env=NANOGPT_DEBUG"],
      ["src/cli/serve.ts", ...flags],
    );
    const drained = new Response(server.stderr).text();
    const [, url] = /Ready at (http:\S+?)\/v1/.exec(await readUntil(server, /-d '.*'\n/))!;
    try {
      const example = async (key: string, ...args: string[]) => {
        const permissions = [
          "--allow-net=127.0.0.1",
          "--allow-env=OPENAI_API_KEY",
          "--allow-read",
          `--allow-write=${folder}/out`,
        ];
        const words = ["examples/api.ts", `--url=${url}`, `--out=${folder}/out`, "--prompt=say ", ...args];
        const { code, stdout, stderr } = await spawn(permissions, words, { OPENAI_API_KEY: key }).output();
        return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
      };
      const { code, out, err } = await example(key, `${folder}/rows.jsonl`);
      assertEquals([code, err], [0, ""], out);
      assertMatch(out, /^served: letters\nletters: say /);
      const [, tuned] = /^(ft:letters:\S*api-example\S*): say /m.exec(out)!;
      const lines = out.trim().split("\n");
      assertEquals(lines.filter((line, i) => line.startsWith("  ") && lines.indexOf(line) < i), [], "no event twice");
      assertStringIncludes(lines.at(-1)!, "adapter_model.safetensors");

      const { model, tokenizer: saved } = await loadPretrained(`${folder}/letters`, {
        device,
        adapter: `${folder}/out`,
      });
      const prompt = [...tokenizer.encode("say ")], options = { maxNewTokens: 4, temperature: 0 };
      const written = saved.decode(await Array.fromAsync(generate(model, prompt, options)));
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const body = JSON.stringify({ model: tuned, prompt: "say ", max_tokens: 4, temperature: 0 });
      const answer = await (await fetch(`${url}/v1/completions`, { method: "POST", headers, body })).json();
      assertEquals(answer.choices[0].text, written);
      await Deno.writeTextFile(`${folder}/bad.jsonl`, '{"text": 3}\n{"text": "a"}\n');
      const bad = await example(key, `${folder}/bad.jsonl`);
      assertEquals(bad.code, 1);
      assertMatch(bad.err, /^error: ftjob-\S+ failed: .*line 1/);
      const stranger = await example("sk-none", `${folder}/rows.jsonl`);
      assertEquals(stranger.code, 1);
      assertMatch(stranger.err, /^error: POST files: status 401: /);
    } finally {
      server.kill("SIGTERM");
      await Promise.all([server.status, server.stdout.cancel(), drained]);
    }
  }));
