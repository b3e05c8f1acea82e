/** Rewards: scores of functions and models, and errors if a function fails, hangs or lacks a permission. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { ConfigError, TrainingError } from "../../src/errors.ts";
import { RewardFunction } from "../../src/finetune/reward_function.ts";
import { plainReward, RewardModel, type Sample } from "../../src/finetune/rewards.ts";
import { createDevice } from "../../src/device/create.ts";
import { newHead } from "../../src/finetune/head_description.ts";
import { headScores } from "../../src/finetune/head_passes.ts";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { rewardDescription } from "../../src/finetune/reward.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { assertClose, inFolder } from "../testing.ts";

const sample = (prompt: Sample["prompt"], completion = "abc"): Sample => {
  return { prompt, completion, ids: Int32Array.of(1, 2, 3), from: 1, ended: true, more: { answer: 4 } };
};
/** Waits until a process has ended, for at most 30 seconds. */
async function assertEnds(pid: number): Promise<void> {
  const ended = `for i in $(seq 300); do kill -0 ${pid} 2>/dev/null || exit 0; sleep 0.1; done; exit 1`;
  const { success } = await new Deno.Command("sh", { args: ["-c", ended] }).output();
  assert(success, "the process of a reward function still runs");
}
/** Writes a text to a file, opens it as a reward function, and runs `body` with it. */
async function withFunction(
  source: string,
  body: (reward: RewardFunction, path: string) => Promise<void>,
  seconds = 20,
): Promise<void> {
  await inFolder(async (folder) => {
    const path = `${folder}/reward.ts`;
    await Deno.writeTextFile(`${folder}/words.json`, `["a", "b"]`);
    await Deno.writeTextFile(path, source);
    using reward = await RewardFunction.open(path, { seconds });
    await body(reward, path);
  });
}
const failure = async (reward: RewardFunction, samples: readonly Sample[]) =>
  (await assertRejects(() => reward.score(samples), TrainingError)).message;

Deno.test("a reward function receives prompt, completion and sample, and can import modules", () =>
  withFunction(
    `import words from "./words.json" with { type: "json" };
    export default async (prompt: string, completion: string, { ids, more, from, ended }: any): Promise<number> => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return prompt.length + words.filter((word) => completion.includes(word)).length / 2 + ids[2] * more.answer * from * Number(ended);
    };`,
    async (reward) => {
      assertEquals([reward.name, reward.weight], ["reward", 1]);
      assertEquals([...await reward.score([sample("12"), sample("", "b"), sample("", "c")])], [15, 12.5, 12]);
      assertEquals([...await reward.score([])], []);
    },
  ));

const CASES = `export default (prompt: string) => {
  if (typeof prompt !== "string") throw new Error("a conversation");
  if (prompt === "throw") throw new Error("no such word\\nfor two lines");
  if (prompt === "NaN") return NaN;
  if (prompt === "text") return "three";
  if (prompt === "nothing") return;
  if (prompt === "read") return Deno.readTextFileSync("/etc/hostname").length;
  if (prompt === "write") return Deno.writeTextFileSync("/tmp/x", "");
  if (prompt === "fetch") return fetch("http://127.0.0.1:9000");
  if (prompt === "env") return Deno.env.get("HOME");
  if (prompt === "import") return import(String("node:fs")).then((fs) => fs.readFileSync("/etc/hostname").length);
  if (prompt === "pid") return Deno.pid;
  if (prompt === "hang") for (;;);
  if (prompt === "wait") return new Promise(() => {});
  if (prompt === "fill") for (const all: unknown[] = [];;) all.push(new Array(1e6).fill(0.5));
  if (prompt === "exit") Deno.exit(3);
  if (prompt === "later") return new Promise(() => setTimeout(() => { throw new Error("no call is there to catch this"); }));
  if (prompt === "print") Deno.stdout.writeSync(new TextEncoder().encode("hello "));
  return prompt.length;
};`;

Deno.test("a reward function that throws or does not return a finite number is an error that names the prompt", () =>
  withFunction(CASES, async (reward, path) => {
    const begin = `The reward function ${path} `, end = (prompt: string) => `, after the prompt "${prompt}"`;
    const cases = [
      ["throw", "has failed: no such word"],
      ["NaN", "gives NaN, expected a finite number"],
      ["text", 'gives "three", expected a finite number'],
      ["nothing", "gives undefined, expected a finite number"],
    ];
    for (const [prompt, what] of cases) {
      assertEquals(await failure(reward, [sample("ok"), sample(prompt), sample("ok")]), begin + what + end(prompt));
    }
    const chat = [{ role: "system", content: "?" }, { role: "user", content: "two\nlines" }];
    assertEquals(
      await failure(reward, [sample("ok"), sample(chat)]),
      begin + "has failed: a conversation" + end("two?lines"),
    );
    assertEquals([...await reward.score([sample("works")])], [5]);
  }));

Deno.test("a reward function cannot read, write, use the network or the environment", () =>
  withFunction(CASES, async (reward) => {
    for (
      const [prompt, access] of [["read", "read"], ["write", "write"], ["fetch", "net"], ["env", "env"], [
        "import",
        "read",
      ]]
    ) {
      const message = await failure(reward, [sample("ok"), sample(prompt)]);
      assertStringIncludes(message, `tried something that it has no permission for: Requires ${access} access to `);
      assertStringIncludes(message, `, after the prompt "${prompt}"`);
    }
  }));

Deno.test("a reward function that hangs is ended after its time limit, and the next call starts a new process", () =>
  withFunction(CASES, async (reward) => {
    for (const prompt of ["hang", "wait"]) {
      const [pid] = await reward.score([sample("pid")]);
      const message = await failure(reward, [sample("ok"), sample("fine"), sample(prompt)]);
      assertStringIncludes(message, "takes more than 2 seconds for one completion");
      assertStringIncludes(message, `"${prompt}"`);
      assertEquals([...await reward.score([sample("works")])], [5]);
      await assertEnds(pid);
    }
    const controller = new AbortController(), { signal } = controller;
    const waiting = reward.score([sample("wait")], { signal });
    controller.abort(new Error("stopped"));
    await assertRejects(() => waiting, Error, "stopped");
  }, 2));

Deno.test("a reward function that ends its process, fills its heap or writes results of its own fails, and the next call starts a new process", () =>
  withFunction(CASES, async (reward) => {
    const cases = [
      ["exit", "has ended its process with code 3"],
      ["later", "has ended its process with code 1"],
      ["fill", "(its heap is limited to 1024 MB)"],
      ["print", "has written to the standard output, which is reserved for scores"],
    ];
    for (const [prompt, what] of cases) {
      const message = await failure(reward, [sample("fine"), sample(prompt)]);
      assertStringIncludes(message, what);
      assertStringIncludes(message, `"${prompt}"`);
      assertEquals([...await reward.score([sample("works")])], [5]);
    }
  }));

Deno.test("a reward function in an endless loop ends some time after its program was killed", () =>
  inFolder(async (folder) => {
    const { href } = new URL("../../src/finetune/reward_function.ts", import.meta.url), main = `${folder}/main.ts`;
    const reward =
      'export default (prompt) => { if (prompt === "pid") return Deno.pid; console.log("loops"); for (;;); };';
    await Deno.writeTextFile(`${folder}/reward.ts`, reward);
    const sample = "completion: '', ids: new Int32Array(2), from: 1, ended: true";
    const source = `import { RewardFunction } from ${JSON.stringify(href)};
      const reward = await RewardFunction.open("${folder}/reward.ts", { seconds: 0.5 });
      console.log((await reward.score([{ prompt: "pid", ${sample} }]))[0]);
      await reward.score([{ prompt: "loop", ${sample} }]);`;
    await Deno.writeTextFile(main, source);
    const flags = ["--no-prompt", "--no-check", "--allow-read", `--allow-run=${Deno.execPath()}`];
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", ...flags, main],
      stdout: "piped",
      stderr: "piped",
    });
    const child = command.spawn(),
      [out, err] = [child.stdout, child.stderr].map((stream) => {
        return stream.pipeThrough(new TextDecoderStream()).getReader();
      });
    const pid = Number((await out.read()).value);
    assertEquals((await err.read()).value, "loops\n");
    child.kill("SIGKILL");
    await Promise.all([child.status, out.cancel(), err.cancel()]);
    await assertEnds(pid);
  }));

Deno.test("a process suspended for longer than the time limit does not make a reward function time out", () =>
  withFunction(CASES, async (reward) => {
    const scoring = reward.score([sample("works")]);
    await new Promise((resolve) => setTimeout(resolve));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
    assertEquals([...await scoring], [5]);
  }, 0.5));

Deno.test("a file that is missing, does not parse, or has no function as default export is refused when it is opened", () =>
  inFolder(async (folder) => {
    const refused = async (source: string | undefined, message: string) => {
      const path = `${folder}/reward.ts`;
      if (source !== undefined) await Deno.writeTextFile(path, source);
      const error = await assertRejects(() => RewardFunction.open(path), ConfigError);
      assertStringIncludes(error.message, `${path} cannot be used as a reward function: ${message}`);
      await Deno.writeTextFile(path, "");
    };
    await refused(undefined, "Module not found");
    await refused("export const reward = () => 1;", "its default export is not a function");
    await refused("export default 3;", "its default export is not a function");
    await Deno.writeTextFile(`${folder}/other.ts`, "throw new Error('at the top');");
    await Deno.writeTextFile(`${folder}/entry.ts`, `import "./other.ts"; export default () => 1;`);
    await assertRejects(() => RewardFunction.open(`${folder}/entry.ts`), ConfigError, "at the top");
    await Deno.writeTextFile(`${folder}/good.ts`, "export default () => 1;");
    await assertRejects(() => RewardFunction.open(`${folder}/good.ts`, { weight: NaN }), ConfigError, "weight");
  }));

Deno.test("plainReward returns a number for each sample, or an error that names the prompt", async () => {
  const reward = plainReward("length", ({ completion }) => completion.length || NaN, 2);
  assertEquals([...await reward.score([sample("x"), sample("y", "ab")])], [3, 2]);
  const { message } = await assertRejects(() => reward.score([sample("x"), sample("y", "")]), TrainingError);
  assertEquals(message, `The reward length gives NaN, expected a finite number, after the prompt "y"`);
});

Deno.test("a reward model scores texts of any lengths, alone and together, and refuses other tokenizers and texts that are too long", async () => {
  const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText("abcde");
  const make = (labels: string[], padTokenId?: number) => {
    const model = new GPT({ vocabSize: 5, blockSize: 40, nLayer: 1, nHead: 2, nEmbd: 16 }, { device, seed: 3 }).eval();
    const description = { ...rewardDescription(padTokenId), labels };
    return { model, head: newHead(model, description), description, tokenizer };
  };
  const before = device.memory().tensors,
    texts = [3, 40, 17, 1, 24].map((length, i) => {
      return Int32Array.from({ length }, (_, t) => (t * t + i) % 5);
    });
  const samples = texts.map((ids) => ({ ...sample("x"), ids }));
  for (const padTokenId of [undefined, 4]) {
    const scoring = make(["LABEL_0"], padTokenId), { model, head, description } = scoring, rows = new HeadRows();
    for (const ids of texts) rows.add([ids], { where: "here", label: 0 });
    const expected = (await headScores(model, head, { description, rows })).map(([score]) => score);
    using reward = new RewardModel(scoring, { policy: tokenizer, name: "help", batchSize: 2 });
    for (let again = 0; again < 2; again++) { // the first call captures passes, the second replays them
      assertClose(await reward.score(samples), expected, { atol: 1e-6, rtol: 1e-6 }, "scores");
    }
    assertClose(await reward.score(samples.slice(1, 2)), expected.slice(1, 2), { atol: 1e-6, rtol: 1e-6 }, "one");
    assertEquals([...await reward.score([])], []);
    const long = { ...sample("too long"), ids: new Int32Array(41) };
    // After a TrainingError, the run is saved.
    const { message } = await assertRejects(() => reward.score([samples[0], long]), TrainingError);
    assertStringIncludes(
      message,
      `help reads at most 40 tokens, but a text after the prompt "too long" has 41; use shorter`,
    );
  }
  assertEquals(device.memory().tensors, before);
  const refused = (policy: string, labels: string[], message: string) => {
    const scoring = make(labels);
    const error = assertThrows(() =>
      new RewardModel(scoring, { policy: CharacterTokenizer.fromText(policy), name: "help" })
    );
    assertEquals([(error as Error).name, (error as Error).message], ["ConfigError", message]);
  };
  const other = "The reward model help has another tokenizer than the policy: ";
  refused("abcdef", ["LABEL_0"], other + "it has 5 tokens, expected 6 or more");
  refused("abxy", ["LABEL_0"], other + `token 2 is "c", expected "x"`);
  refused(
    "abcde",
    ["no", "yes"],
    "help is not a reward model: its head has 2 labels for classify; expected one number",
  );
  device.close();
});
