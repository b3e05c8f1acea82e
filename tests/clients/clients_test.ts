/**
 * Programs that speak OpenAI's API, over the server with two random models. They are fetched into a temporary folder: Python 3 with
 * pip has to be there, and npm's packages come through Deno.
 *
 * `deno task test:clients` runs this.
 */
import { assert, assertMatch } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { chatTokenizer } from "../../src/data/chat_template.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { Access } from "../../src/server/auth.ts";
import type { ModelSpec } from "../../src/server/messages.ts";
import { serveRoutes } from "../../src/server/server.ts";
import { openEngine } from "../../src/server/worker_engine.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

/** Python's, with the versions that were tried. */
const PYTHON: Readonly<Record<string, readonly string[]>> = {
  openai_strict: ["openai==3.57.0"],
  fields: ["openai==3.57.0"],
  openai_old: ["openai==0.28.1"],
  langchain_check: ["langchain-openai==1.7.4"],
  litellm_check: ["litellm==1.110.2"],
  lm_eval_task: ["lm_eval[api]==0.4.13"],
};
const DENO = ["openai_npm", "ai_sdk"];

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
const models = ["letters", "chats"].map((id): ModelSpec => ({
  ...{ id, path: `${folder}/${id}`, weights: "f32", device: "cpu", threads: 2, slots: 16, cache: "f32" },
}));

/** With a server; the tests share none, for each leaves nothing behind. */
async function serving(body: (args: readonly string[]) => Promise<void>): Promise<void> {
  await using engine = await openEngine({ models });
  const errors: unknown[] = [], onError = (error: unknown) => errors.push(error);
  const served = { engine, access: new Access({ hostname: "127.0.0.1" }), onError };
  await using listener = await serveRoutes(served, { port: 0 });
  await body([`http://127.0.0.1:${listener.port}/v1`, "letters", "chats"]);
  assert(errors.length === 0, `${errors[0]}`);
}

for (const [name, packages] of Object.entries(PYTHON)) {
  Deno.test(`${name}: ${packages}`, () =>
    serving(async (args) => {
      const target = `${folder}/${packages[0].replace(/\W/g, "_")}`;
      await run("python3", ["-m", "pip", "install", "--quiet", "--target", target, ...packages]);
      const env = { PYTHONPATH: target, LITELLM_LOCAL_MODEL_COST_MAP: "True" };
      const said = await run("python3", [`${here}${name}.py`, ...args], env);
      if (name !== "fields") return assertMatch(said, /checks passed\n$/);
      const docs = await Deno.readTextFile(new URL("../../docs/serving.md", import.meta.url));
      const plain = (table: string) => table.replace(/ *\| */g, "|").replace(/-+/g, "-"); // however it is laid out
      assert(plain(docs).includes(plain(said)), `docs/serving.md does not have this table:\n${said}`);
    }));
}

for (const name of DENO) {
  Deno.test(`${name}: in Deno`, () =>
    serving(async (args) => {
      const allowed = ["--allow-env", "--allow-read", "--allow-sys", "--allow-net=127.0.0.1"];
      const config = ["--config", new URL("../../deno.json", import.meta.url).pathname, "--no-check", "--no-prompt"];
      assertMatch(
        await run(Deno.execPath(), ["run", ...config, ...allowed, `${here}${name}.ts`, ...args]),
        /passed\n$/,
      );
    }));
}

globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
