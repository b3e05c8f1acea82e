/** `deno task data` in its own process. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { inFolder } from "../testing.ts";

const root = new URL("../../", import.meta.url);

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--allow-env=NANOGPT_DEBUG",
      "--allow-read",
      "src/cli/data.ts",
      ...args,
    ],
    cwd: root,
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "" },
    stdout: "piped",
    stderr: "piped",
  }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

Deno.test("data prints rows token by token with learned tokens in brackets, and the rows' lengths", () =>
  inFolder(async (folder) => {
    const path = `${folder}/facts.jsonl`,
      rows = [
        { prompt: "The capital of France is", completion: " Paris,\nin \u001b[31mEurope." },
        { prompt: "a", completion: "b" },
        ...Array.from({ length: 38 }, () => ({ prompt: "One two", completion: " three" })),
      ];
    await Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
    const { code, out, err } = await run(path, "--num_rows=2");
    assertEquals([code, err], [0, ""]);
    // The rows have 5 + 12, 2 and 38 · 4 tokens. "ab" is one token of GPT-2, so the second row learns only its end.
    assertEquals(
      out,
      `${path}, line 1: a prompt and its completion
17 tokens, 12 learned
  The| capital| of| France| is|[ Paris][,][\\n
  ][in][ ][\\u{1b}][[][31][m][Europe][.][<|endoftext|>]

${path}, line 2: a prompt and its completion
2 tokens, 1 learned
  ab|[<|endoftext|>]

rows             40
tokens           171, 89 learned (52.0 %)
merged border    1 rows: one token spans the end of the prompt and the completion
tokens in a row  2 to 17, mean 4.3, median 4, 95 % have at most 4
   0 to  8  ######################################## 39
   9 to 16${" ".repeat(43)}0
  17 to 32  #${" ".repeat(40)}1
`,
    );
  }));

Deno.test("data cuts rows, reads renamed columns, uses the tokenizer of a folder, and counts labels", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/vocabulary.json`, JSON.stringify({ type: "character", characters: "abc" }));
    await Deno.writeTextFile(`${folder}/a.csv`, "sentence,gold\nabc,yes\nabca,no\nbbbb,yes\n");
    const tokenizer = `--tokenizer=${folder}`, columns = "--columns=text=sentence,label=gold";
    const labels = await run(`${folder}/a.csv`, tokenizer, columns, "--task=classify", "--num_rows=1");
    assertEquals([labels.code, labels.err], [0, ""]);
    assertStringIncludes(labels.out, 'line 2: a text with the label "yes"\n3 tokens\n  a|b|c\n');
    assertStringIncludes(labels.out, "labels           yes 2, no 1\n");
    const cut = await run(
      `${folder}/a.csv`,
      tokenizer,
      columns,
      "--task=sft",
      "--num_rows=2",
      "--max_length=3",
      "--truncation=keep_end",
    );
    assertStringIncludes(cut.out, "3 tokens, 2 learned, cut from 4\n  b|[c][a]\n");
    assertStringIncludes(cut.out, "longer than 3    2 rows\n");
    assertStringIncludes(cut.out, "The tokenizer has no token that ends a text");
  }));

Deno.test("data prints the sequences that a head sees, and conversations with a template", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`,
      first = async (row: unknown, ...args: string[]) => {
        await Deno.writeTextFile(path, JSON.stringify(row));
        const { out, err } = await run(path, ...args);
        assertEquals(err, "");
        return out.slice(out.indexOf("\n") + 1, out.indexOf("\n\n"));
      };
    const pair = { text: "one two", pair: "three", label: "no" };
    assertEquals(await first(pair, "--task=classify"), "3 tokens\n  one| two|three");
    assertEquals(
      await first(pair, "--task=similar"),
      "6 tokens\n  _start_|one| two|_delimiter_|three|_classify_\n6 tokens\n  _start_|three|_delimiter_|one| two|_classify_",
    );
    const choice = { context: "one", choices: [" two", " four six"], label: 1 };
    assertEquals(
      await first(choice, "--max_length=2"),
      "0: 2 tokens\n  one| two\n1, right: 2 tokens, cut from 3\n  one| four",
    );
    const question = { role: "user", content: "hi" },
      say = (content: string) => [question, { role: "assistant", content }];
    const answers = { chosen: say("yes"), rejected: say("no") };
    assertEquals(
      await first(answers, "--template=plain"),
      "chosen: 4 tokens, 2 learned\n  hi|<|endoftext|>|[yes][<|endoftext|>]\nrejected: 4 tokens, 2 learned\n  hi|<|endoftext|>|[no][<|endoftext|>]",
    );
  }));

Deno.test("data reports errors with their place in at most two lines", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`;
    await Deno.writeTextFile(path, '{"text":"a"}\n{"text":"b"');
    const broken = await run(path, "--num_rows=0");
    assertEquals([broken.code, broken.out], [1, ""]);
    assertStringIncludes(broken.err, `error: ${path}, line 2: not JSON`);
    assertStringIncludes(
      (await run(path, "--columns=text")).err,
      "error: --columns=text: expected USUAL=NAME, such as",
    );
    const missing = await run();
    assertEquals([missing.code, missing.err], [2, "error: data takes one file: deno task data FILE\n"]);
    await Deno.writeTextFile(path, '{"messages":[{"role":"user","content":"a"}]}');
    assertStringIncludes((await run(path)).err, `${path}, line 1: a conversation, but the model has no chat template`);
    await Deno.writeTextFile(path, '{"prompt":"a b c d","completion":" e"}');
    assertStringIncludes((await run(path, "--max_length=3")).err, `${path}: no row has a token that is learned`);
  }));
