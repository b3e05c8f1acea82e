/** `deno task chat` with a pipe as input: each line is a message, and standard output has only the answers. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { ChatTemplate, chatTokenizer } from "../../src/data/mod.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { Chat } from "../../src/pretrained/chat.ts";
import { CharacterTokenizer, type Tokenizer } from "../../src/tokenizer/mod.ts";

const root = new URL("../../", import.meta.url).pathname, letters = [..."abcdefghijklmnopqrstuvwxyz /:\n"];

function begin(folder: string, args: string[]): Deno.ChildProcess {
  const permissions = ["--no-prompt", "--no-check", "--allow-read", `--allow-write=${folder}`, "--allow-env=INIT_CWD"];
  const command = ["run", ...permissions, `${root}src/cli/chat.ts`, "--threads=1", "--temperature=0", ...args];
  const env = { INIT_CWD: folder }, piped = "piped";
  return new Deno.Command(Deno.execPath(), { args: command, env, stdin: piped, stdout: piped, stderr: piped }).spawn();
}

async function run(folder: string, args: string[], input: string): Promise<{ code: number; out: string; err: string }> {
  const process = begin(folder, args), writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).then(() => writer.close(), () => {});
  const { code, stdout, stderr } = await process.output(),
    text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

Deno.test("chat answers each line, carries out commands, saves a row, and reports errors", async () => {
  const folder = await Deno.makeTempDir(), device = await createDevice("cpu", { threads: 1 });
  try {
    const tokenizer: Tokenizer = chatTokenizer(new CharacterTokenizer(letters), "chatml");
    const model = new GPT({ vocabSize: tokenizer.vocabSize, blockSize: 256, nLayer: 1, nHead: 1, nEmbd: 16 }, {
      device,
    });
    await saveHuggingFace(model, `${folder}/model`, { tokenizer });
    const expected: string[] = [], chatTemplate = ChatTemplate.of(tokenizer);
    for (const messages of [["hello", "/a"], ["bye"]]) {
      const system = expected.length > 0 ? "be kind" : undefined, options = { system, maxNewTokens: 9, temperature: 0 };
      using talk = await Chat.begin({ model: model.eval(), tokenizer, chatTemplate }, options);
      for (const message of messages) {
        let text = "";
        for await (const piece of talk.answer(message)) text += piece;
        expected.push(text + (talk.finishReason === "stop" ? text.endsWith("\n") ? "" : "\n" : "…\n"));
      }
    }
    const flags = ["--init_from=model", "--max_new_tokens=9"];
    const input = "hello\n\n//a\n/system be kind\nbye\n/save rows.jsonl\n/save rows.jsonl";
    assertEquals(await run(folder, flags, input), {
      code: 0,
      out: expected.join(""),
      err: "Saved 3 messages to rows.jsonl\n".repeat(2),
    });
    const rows = (await Deno.readTextFile(`${folder}/rows.jsonl`)).trim().split("\n");
    assertEquals(rows[0], rows[1]);
    const roles = JSON.parse(rows[0]).messages.map(({ role }: { role: string }) => role);
    assertEquals(roles, ["system", "user", "assistant"]);
    assertEquals(JSON.parse(rows[0]).messages[0].content, "be kind");

    const failures: [number, string, string[], string][] = [
      [1, "Not in the vocabulary", flags, "Hello"],
      [1, "/rest: expected /reset, /system TEXT", flags, "/rest"],
      [1, "Cannot write none/x: no such file or folder", flags, "/save none/x"],
      [2, "--template=nanochat uses the token <|bos|>", [...flags, "--template=nanochat"], "a"],
      [2, "--template=x: there is no such file; expected chatml, plain", [...flags, "--template=x"], "a"],
      [2, 'No model "none"', ["--init_from=none"], "a"],
    ];
    for (const [code, message, args, text] of failures) {
      const failed = await run(folder, args, text);
      assertEquals([failed.code, failed.out], [code, ""], failed.err);
      assertStringIncludes(failed.err, `error: ${message}`);
      assert(failed.err.trim().split("\n").length <= 2, failed.err);
    }
    model.dispose();
  } finally {
    device.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test({
  name: "Ctrl-C ends an answer, and the chat answers the next message",
  ignore: Deno.build.os === "windows",
  async fn() {
    const folder = await Deno.makeTempDir(), device = await createDevice("cpu", { threads: 1 });
    try {
      const tokenizer = new CharacterTokenizer(letters), sizes = { nLayer: 4, nHead: 4, nEmbd: 256 };
      using model = new GPT({ vocabSize: tokenizer.vocabSize, blockSize: 4096, ...sizes }, { device });
      await saveHuggingFace(model, `${folder}/model`, { tokenizer });
      // The user's own template, without a token that ends a turn.
      await Deno.writeTextFile(
        `${folder}/x.jinja`,
        "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\\n' }}{% endfor %}",
      );
      const process = begin(folder, ["--init_from=model", "--template=x.jinja", "--max_new_tokens=3500"]);
      const writer = process.stdin.getWriter(),
        reader = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      const until = async (done: () => boolean) => {
        while (!done()) {
          const { value, done: over } = await reader.read();
          if (over) throw new Error(`it ended after ${JSON.stringify(text)}`);
          text += value;
        }
      };
      await writer.write(new TextEncoder().encode("a\nb\n"));
      await until(() => text.length >= 20);
      process.kill("SIGINT");
      await until(() => text.includes("…\n"));
      const [first] = text.split("…\n");
      assert(first.length < 3500, `${first.length}`);
      await until(() => text.length >= first.length + 20);
      process.kill("SIGKILL");
      await Promise.all([writer.abort(), reader.cancel(), process.stderr.cancel(), process.status]);
    } finally {
      device.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
