/** Rows from files, and examples from rows: every format, and the place and reason of each error. */
import { assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type Example, type Kind, readExamples } from "../../src/data/examples.ts";
import { LONGEST } from "../../src/data/pieces.ts";
import { readRows } from "../../src/data/rows.ts";
import { TokenRows } from "../../src/data/token_rows.ts";
import { ConfigError, DataError } from "../../src/errors.ts";
import { inFolder } from "../testing.ts";

const ALL: readonly Kind[] = ["text", "completion", "preference", "ranking", "label", "choice", "prompt"];
type Plain = Example extends infer E ? E extends Example ? Omit<E, "where"> : never : never;

/** The examples of a file with these contents, by their places in the file. */
function read(
  name: string,
  contents: string | Uint8Array,
  kinds: readonly Kind[] = ALL,
  columns?: Record<string, string>,
): Promise<[place: string, example: Plain][]> {
  let found: [string, Plain][] = [];
  return inFolder(async (folder) => {
    const path = `${folder}/${name}`;
    if (typeof contents === "string") await Deno.writeTextFile(path, contents);
    else await Deno.writeFile(path, contents);
    try {
      found = (await Array.fromAsync(readExamples(path, { kinds, columns }))).map(({ where, ...example }) => [
        where.replace(`${path}, `, ""),
        example,
      ]);
    } catch (error) {
      if (error instanceof Error) error.message = error.message.replaceAll(`${folder}/`, "");
      throw error;
    }
  }).then(() => found);
}

const refused = async (name: string, contents: string | Uint8Array, message: string, kinds?: readonly Kind[]) =>
  assertStringIncludes((await assertRejects(() => read(name, contents, kinds), DataError)).message, message);

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("JSON lines may have a byte-order mark, CRLF, empty lines, and no line end at the end", async () => {
  assertEquals(await read("a.jsonl", '\ufeff{"text":"é😀"}\r\n\r\n{"text":"b\\n"}\n  \n{"text":"c"}'), [
    ["line 1", { kind: "text", text: "é😀" }],
    ["line 3", { kind: "text", text: "b\n" }],
    ["line 5", { kind: "text", text: "c" }],
  ]);
});

Deno.test("a file named .json may have a JSON array on one line or on several lines, or JSON lines", async () => {
  const rows = [{ text: 'a, ] } " \\' }, { text: "[{" }];
  for (const text of [JSON.stringify(rows), JSON.stringify(rows, null, 2) + "\n", ` ${JSON.stringify(rows)} `]) {
    assertEquals(
      (await read("a.json", text)).map(([, example]) => example),
      rows.map((row) => ({ kind: "text" as const, ...row })),
    );
  }
  assertEquals((await read("a.json", JSON.stringify(rows, null, 2)))[1][0], "row 2, near line 4");
  assertEquals((await read("a.json", rows.map((row) => JSON.stringify(row)).join("\n")))[1][0], "line 2");
});

Deno.test("comma-separated values may have quoted cells with commas, line ends and quotes, and numbers as labels", async () => {
  const text = 'text,label,extra\r\n"a ""b"", c",1,\r\n"x\r\ny",-0.5,z\r\n\r\n5" disk,007,""\n,yes,"""';
  const found = [
    ["line 2", { kind: "label", text: 'a "b", c', label: 1 }],
    ["line 3", { kind: "label", text: "x\r\ny", label: -0.5 }],
    ["line 6", { kind: "label", text: '5" disk', label: "007" }],
    ["line 7", { kind: "label", text: "", label: "yes" }],
  ];
  assertEquals(await read("a.csv", `${text}"`), found as never);
  await refused("a.csv", text, "a.csv, line 7: a quoted cell does not end");
  await refused("a.csv", 'text\n"a"b\n', 'a.csv, line 2: expected a comma after the quoted cell 1, not "b"');
  await refused("a.csv", "text,label\na\n", "a.csv, line 2: 1 cells, but the first line names 2 columns");
  await refused("a.csv", "text,text\na,b\n", 'a.csv, line 1: two columns are called "text"');
  assertEquals((await read("a.csv", 'messages\n"[{""role"":""user"",""content"":""hi""}]"')).map(([, e]) => e), [
    { kind: "text", text: [{ role: "user", content: "hi" }] },
  ]);
});

Deno.test("cells are the same wherever a block of the file ends", async () => {
  const rows = Array.from(
    { length: 3 * 2 ** 12 },
    (_, i) => ({ text: `é"${"\r\n".repeat(i % 3)},${"x".repeat(i % 89)}` }),
  );
  const csv = "text\n" + rows.map(({ text }) => `"${text.replaceAll('"', '""')}"`).join("\r\n");
  for (const [name, text] of [["a.csv", csv], ["a.json", JSON.stringify(rows, null, 1)]]) {
    assertEquals((await read(name, text)).map(([, e]) => "text" in e && e.text), rows.map(({ text }) => text));
  }
});

Deno.test("the columns determine the format of an example", async () => {
  const message = { role: "user", content: "a" }, answer = { role: "assistant", content: "b" };
  const rows: [row: Record<string, unknown>, example: Plain][] = [
    [{ messages: [message, answer] }, { kind: "text", text: [message, answer] }],
    [{ conversations: [{ from: "human", value: "a" }, { from: "gpt", value: "b" }] }, {
      kind: "text",
      text: [message, answer],
    }],
    [{ prompt: "a", completion: "b" }, { kind: "completion", prompt: "a", completion: "b" }],
    [{ prompt: [message], completion: [answer] }, { kind: "completion", prompt: [message], completion: [answer] }],
    [{ chosen: "a", rejected: "b" }, { kind: "preference", chosen: "a", rejected: "b" }],
    [{ prompt: "p", chosen: "a", rejected: "b", more: 1 }, {
      kind: "preference",
      prompt: "p",
      chosen: "a",
      rejected: "b",
    }],
    [{ chosen: "a", rejected: "b", margin: "0.5" }, { kind: "preference", chosen: "a", rejected: "b", margin: 0.5 }],
    [{ prompt: "p", completions: ["a", "b", "c"] }, { kind: "ranking", prompt: "p", completions: ["a", "b", "c"] }],
    [{ prompt: "p", completions: '["a", "b"]' }, { kind: "ranking", prompt: "p", completions: ["a", "b"] }],
    [{ prompt: [message], completions: [[answer], [message]] }, {
      kind: "ranking",
      prompt: [message],
      completions: [[answer], [message]],
    }],
    // If the answers are whole conversations, a prompt that is a text is ignored.
    [{ prompt: "a", chosen: [message, answer], rejected: [message] }, {
      kind: "preference",
      chosen: [message, answer],
      rejected: [message],
    }],
    [{ prompt: "p", answer: 4 }, { kind: "prompt", prompt: "p" }],
    [{ prompt: [message] }, { kind: "prompt", prompt: [message] }],
    [{ text: "a", label: true }, { kind: "label", text: "a", label: true }],
    [{ text: "a", labels: ["x", 2] }, { kind: "label", text: "a", label: ["x", 2] }],
    [{ premise: "a", hypothesis: "b", label: "no" }, { kind: "label", text: "a", pair: "b", label: "no" }],
    [{ context: "a", choices: ["b", "c"], label: 1 }, { kind: "choice", context: "a", choices: ["b", "c"], label: 1 }],
    [{ ctx: "a", endings: ["b", "c"], label: "0" }, { kind: "choice", context: "a", choices: ["b", "c"], label: 0 }],
  ];
  for (const [row, example] of rows) assertEquals(await read("a.jsonl", JSON.stringify(row)), [["line 1", example]]);
  // If the columns fit several formats, the format is one that the caller accepts. A prompt takes precedence over a
  // text, as in TRL.
  const line = JSON.stringify({ text: "t", label: 1, prompt: "p", completion: "c" });
  const kindOf = async (kinds: Kind[]) => (await read("a.jsonl", line, kinds))[0][1].kind;
  assertEquals(await kindOf(["text", "completion"]), "completion");
  assertEquals(await kindOf(["text"]), "text");
  assertEquals(await kindOf(["text", "label"]), "label");
});

Deno.test("prompts come with the row's other columns if requested, and margins are numbers", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`, row = { question: "2 + 2?", answer: 4, tools: [], note: null };
    await Deno.writeTextFile(path, JSON.stringify(row));
    const all = async (more?: boolean) =>
      await Array.fromAsync(readExamples(path, { kinds: ["prompt"], columns: { prompt: "question" }, more }));
    const prompt = { kind: "prompt", where: `${path}, line 1`, prompt: "2 + 2?" } as const;
    assertEquals(await all(), [prompt]);
    assertEquals(await all(true), [{ ...prompt, more: { answer: 4, note: null } }]);
    await refused(
      "a.jsonl",
      '{"chosen":"a","rejected":"b","margin":"much"}',
      'margin is the text "much"; expected a number',
    );
  }));

Deno.test("a template gets tools and variables besides the messages, also from JSON, and without nulls", async () => {
  const tools = [{ name: "f", needs: null }],
    call = { role: "assistant", content: null, tool_calls: [{ name: "f" }], name: null };
  const question = { role: "user", content: "a" }, messages = [question, call];
  for (const given of [tools, JSON.stringify(tools)]) {
    const row = { messages, tools: given, chat_template_kwargs: { thinking: false } };
    assertEquals(await read("a.jsonl", JSON.stringify(row)), [["line 1", {
      kind: "text",
      text: [question, { role: "assistant", content: "", tool_calls: [{ name: "f" }] }],
      tools: [{ name: "f" }],
      variables: { thinking: false },
    }]]);
  }
});

Deno.test("columns can be renamed to the usual names", async () => {
  const contents = "sms,spam\nhi,no\n";
  assertEquals(await read("a.csv", contents, ["label"], { text: "sms", label: "spam" }), [
    ["line 2", { kind: "label", text: "hi", label: "no" }],
  ]);
  const error = await assertRejects(() => read("a.csv", contents, ["label"], { text: "sms", label: "spm" }), DataError);
  assertStringIncludes(error.message, "a.csv, line 2: no column spm (the nearest is spam)");
});

Deno.test("an error names missing and misspelt columns", async () => {
  await refused(
    "a.jsonl",
    '{"promt":"a","completion":"b"}',
    "a.jsonl, line 1: no column prompt (the nearest is promt); expected the columns (prompt, completion) or (text), " +
      "and found promt, completion",
    ["text", "completion"],
  );
  await refused("a.jsonl", '{"Text":"a"}', "no column text (the nearest is Text)", ["text"]);
  await refused("a.jsonl", "{}", "and found none");
  await refused("a.jsonl", '{"text":"a"}\n{"txt":"b"}', "a.jsonl, line 2: text is missing");
});

Deno.test("values of the wrong type, invalid roles, and nulls are rejected", async () => {
  const line = async (row: unknown, message: string) =>
    await refused("a.jsonl", `\n${JSON.stringify(row)}`, `line 2: ${message}`);
  await line({ text: null }, "text is null; expected a text");
  await line({ text: 3 }, "text is the number 3; expected a text");
  await line({ messages: [] }, "messages has no messages");
  await line({ messages: "hi" }, "messages is not JSON");
  await line({ messages: ["hi"] }, 'messages[0] is the text "hi"; expected a message');
  await line({ messages: [{ role: "user" }] }, "messages[0].content is missing; expected a text");
  await line({ messages: [{ role: "user", content: [] }] }, "messages[0].content is a list of 0");
  await line({ messages: [{ role: "", content: "a" }] }, "messages[0].role is");
  await line({ messages: [{ from: 3, value: "a" }] }, "messages[0].from is the number 3; expected a role");
  await line(
    { messages: [{ role: "asistant", content: "a" }] },
    'messages[0] has the role "asistant": the nearest is assistant',
  );
  await line(
    { prompt: "a", completion: [{ role: "user", content: "a" }] },
    "prompt is a text, and completion is a list of messages",
  );
  await line({ text: "a", label: null }, "label is null; expected a class's name or number");
  await line({ text: "a", label: {} }, "label is an object");
  await line(
    { context: "a", choices: ["b"], label: 0 },
    "choices is a list of 1; expected a list of two texts or more",
  );
  await line({ context: "a", choices: ["b", 1], label: 0 }, "choices[1] is the number 1");
  await line({ prompt: "a", completions: ["b"] }, "completions is a list of 1; expected a list of two answers or more");
  await line({ prompt: "a", completions: ["b", 1] }, "completions[1] is the number 1; expected a text, or a list");
  const mixed = [[{ role: "user", content: "b" }], "c"];
  await line({ prompt: "a", completions: mixed }, "prompt is a text, and completions[0] is a list of messages");
  await line(
    { context: "a", choices: ["b", "c"], label: 2 },
    "label is the number 2; expected the number of a choice, from 0 to 1",
  );
  await line({ messages: [{ role: "user", content: "a" }], tools: {} }, "tools is an object; expected a list");
  const deep = `{"messages":[{"role":"user","content":"a","more":${"[".repeat(1e5)}${"]".repeat(1e5)}}]}`;
  await refused("a.jsonl", deep, "line 1: messages[0] is nested deeper than 100 levels");
});

Deno.test("files that are empty, truncated, or in another format or encoding are rejected", async () => {
  for (
    const [name, empty] of [["a.jsonl", "\n \n"], ["a.json", ""], ["a.json", " []\n"], ["a.csv", "text\n"], [
      "a.csv",
      "",
    ]]
  ) {
    await refused(name, empty, `${name} has no rows`);
  }
  await refused("a.jsonl", '{"text":"a"}\n{"text":"b', "a.jsonl, line 2: not JSON");
  await refused(
    "a.jsonl",
    '["a"]',
    'a.jsonl, line 1: expected an object with named values, {"text": "…"}, not an array',
  );
  for (const cut of ['[{"text":"a"}', '[{"text":"a"},', "[", '[{"text":"a"},\n ']) {
    await refused("a.json", cut, "a.json is cut off: its array does not end");
  }
  await refused("a.json", '[{"text":"a"}]\n{"text":"b"}', "a.json, line 1: text after the end of the array");
  await refused("a.json", '[{"text":"a"},]', "a.json, row 2, near line 1: not JSON");
  const latin = bytes('{"text":"a"}\n{"text":"\xe9"}').filter((byte) => byte !== 0xc3);
  await refused("a.jsonl", latin, "a.jsonl, line 2: not UTF-8 text");
  await refused("a.xlsx", "", "a.xlsx: expected a file with rows, whose name ends in .jsonl, .ndjson, .json, .csv");
  await refused(
    "a.jsonl",
    `{"text":"${"x".repeat(LONGEST)}"}`,
    `a.jsonl, line 1: a row is longer than the limit of ${LONGEST} bytes`,
  );
  await assertRejects(
    () => Array.fromAsync(readRows("no/file.csv")),
    DataError,
    "Cannot read no/file.csv: no such file",
  );
});

Deno.test("a line of several megabytes is read", async () => {
  const text = "é".repeat(2 ** 21);
  assertEquals(await read("a.jsonl", `{"text":"a"}\n{"text":"${text}"}\n{"text":"b"}`), [
    ["line 1", { kind: "text", text: "a" }],
    ["line 2", { kind: "text", text }],
    ["line 3", { kind: "text", text: "b" }],
  ]);
});

Deno.test("a file that changes while it is read is an error", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`, line = '{"text":"a"}\n';
    const changes = [
      () => Deno.writeTextFile(path, line, { append: true }),
      () => Deno.truncate(path, 2 ** 20 + 5), // the last row is cut, but the error must be that the file has changed
    ];
    for (const change of changes) {
      await Deno.writeTextFile(path, line.repeat(1e5)); // longer than the block that is read first
      const rows = readRows(path);
      await rows.next();
      await change();
      await assertRejects(() => Array.fromAsync(rows), DataError, "changed while it was read");
    }
  }));

Deno.test("only columns with a usual name can be renamed", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`;
    await Deno.writeTextFile(path, '{"text":"a","gold":"b"}\n');
    const wrong = "columns: lable is not the usual name of a column (the nearest is label)";
    const rows = (columns: Record<string, string>) =>
      Array.fromAsync(readExamples(path, { kinds: ["text", "label"], columns }));
    await assertRejects(() => rows({ lable: "gold" }), ConfigError, wrong);
    assertEquals((await rows({ label: "gold" }))[0].kind, "label");
  }));

Deno.test("rows with equal ids but different labels have different identities", () => {
  const identity = (...rows: [ids: number[], learned: number[]][]) => {
    const all = new TokenRows();
    for (const [ids, learned] of rows) all.push({ ids: Int32Array.from(ids), learned: Uint8Array.from(learned) });
    return all.identity();
  };
  const first = identity([[1, 2, 3], [0, 1, 1]], [[4, 5], [0, 1]]);
  assertEquals(first.length, 5);
  assertEquals(identity([[1, 2, 3], [0, 1, 1]], [[4, 5], [0, 1]]), first);
  assertNotEquals(identity([[1, 2, 3], [0, 0, 1]], [[4, 5], [0, 1]]), first);
  assertNotEquals(identity([[1, 2, 0], [0, 1, 1]], [[4, 5], [0, 1]]), first);
});
