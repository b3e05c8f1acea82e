/**
 * Clients of OpenAI's API, tested with a server of two random models. They are installed into a temporary folder:
 * Python packages by pip, which must be installed, and npm packages by Deno.
 *
 * `deno task test:clients` runs this.
 */
import { assert, assertMatch } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { chatTokenizer } from "../../src/data/chat_template.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

/** Python packages with the tested versions. */
const PYTHON: Readonly<Record<string, readonly string[]>> = {
  openai_strict: ["openai==3.57.0"],
  fields: ["openai==3.57.0"],
  openai_jobs: ["openai==3.57.0"],
  openai_old: ["openai==0.28.1"],
  langchain_check: ["langchain-openai==1.7.4"],
  litellm_check: ["litellm==1.110.2"],
  lm_eval_task: ["lm_eval[api]==0.4.13"],
};
const DENO = ["openai_npm", "openai_npm_jobs", "ai_sdk"];

const characters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
const letters = new CharacterTokenizer([...characters, "\n"]);

async function save(path: string, tokenizer: Tokenizer): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const sizes = { blockSize: 64, nLayer: 2, nHead: 2, nEmbd: 32, vocabSize: tokenizer.vocabSize };
  using model = new GPT(sizes, { device, seed: 3 });
  await saveHuggingFace(model, path, { tokenizer });
}

async function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], env }).output();
  const text = new TextDecoder().decode(stdout);
  assert(success, `${command} ${args.join(" ")}:\n${text}${new TextDecoder().decode(stderr)}`);
  return text;
}

const folder = await Deno.makeTempDir(), here = new URL(".", import.meta.url).pathname;
await save(`${folder}/letters`, letters);
await save(`${folder}/chats`, chatTokenizer(letters, "chatml"));

/** The permissions of the task `serve`, without access to the hub. */
const allowed = ["--allow-read", "--allow-write", "--allow-net=127.0.0.1", "--allow-sys=systemMemoryInfo,statfs"];
const command = [
  "run",
  "--no-check",
  "--no-prompt",
  ...allowed,
  "--allow-env=NANOGPT_DEBUG",
  `${here}../../src/cli/serve.ts`,
];
const keys = `--keys=${folder}/keys.json`;
const [key] = (await run(Deno.execPath(), [...command, keys, "--new_key=tests"])).split("\n");
const models = ["letters", "chats"].map((name) => `--model=${folder}/${name}`);
const server = new Deno.Command(Deno.execPath(), {
  args: [...command, ...models, keys, `--jobs=${folder}/jobs`, "--port=0"],
  ...{ stdout: "piped", stderr: "piped" },
}).spawn();
let log = "";
const url = Promise.withResolvers<string>();
for (const stream of [server.stdout, server.stderr]) {
  (async () => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      log += text;
      const [, at] = /Ready at (\S+\/v1)/.exec(log) ?? [];
      if (at) url.resolve(at);
    }
  })();
}
server.status.then(() => url.reject(new Error(log)));
globalThis.addEventListener("unload", () => {
  server.kill("SIGKILL");
  Deno.removeSync(folder, { recursive: true });
});
const address = await url.promise;
/** The arguments of a client's script: the scripts of jobs need a key, and no model for plain texts. */
const argsOf = (name: string) => [address, /jobs/.test(name) ? key : "letters", "chats"];

for (const [name, packages] of Object.entries(PYTHON)) {
  Deno.test(`${name}: ${packages}`, async () => {
    const target = `${folder}/${packages[0].replace(/\W/g, "_")}`;
    await run("python3", ["-m", "pip", "install", "--quiet", "--target", target, ...packages]);
    const env = { PYTHONPATH: target, LITELLM_LOCAL_MODEL_COST_MAP: "True" };
    const said = await run("python3", [`${here}${name}.py`, ...argsOf(name)], env);
    if (name !== "fields") return assertMatch(said, /checks passed\n$/);
    const docs = await Deno.readTextFile(new URL("../../docs/serving.md", import.meta.url));
    const plain = (table: string) => table.replace(/ *\| */g, "|").replace(/-+/g, "-"); // whatever the widths of its columns
    assert(plain(docs).includes(plain(said)), `docs/serving.md does not have this table:\n${said}`);
  });
}

for (const name of DENO) {
  Deno.test(`${name}: in Deno`, async () => {
    const allowed = ["--allow-env", "--allow-read", "--allow-sys", "--allow-net=127.0.0.1"];
    const config = ["--config", new URL("../../deno.json", import.meta.url).pathname, "--no-check", "--no-prompt"];
    assertMatch(
      await run(Deno.execPath(), ["run", ...config, ...allowed, `${here}${name}.ts`, ...argsOf(name)]),
      /passed\n$/,
    );
  });
}

Deno.test("serve: no internal errors were logged", () => assert(!/request req_|job /.test(log), log));
