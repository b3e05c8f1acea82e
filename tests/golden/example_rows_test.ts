/**
 * Rows as TRL's SFTTrainer and DPOTrainer prepare them, and the order in which its trainer takes them
 * (example_rows.py).
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ChatTemplate } from "../../src/data/chat_template.ts";
import { Epochs, holdOut } from "../../src/data/epochs.ts";
import { readExamples } from "../../src/data/examples.ts";
import { labelCount, TokenRows } from "../../src/data/token_rows.ts";
import { type Of, tokenizeExample, type TokenizeOptions } from "../../src/data/tokenize_example.ts";
import { preferenceRows, tokenizePreference, tokenizePrompt } from "../../src/data/tokenize_preference.ts";
import { CheckpointError, DataError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { inFolder } from "../testing.ts";
import golden from "./example_rows.json" with { type: "json" };
import tokenizers from "./hugging_face_tokenizers.json" with { type: "json" };

const { cases, preferences, orders, heldOut } = golden, chatml = new ChatTemplate(golden.template);
let tokenizer!: Tokenizer;
await inFolder(async (folder) => {
  for (const [name, text] of Object.entries(tokenizers.cases[1].files)) {
    await Deno.writeTextFile(`${folder}/${name}`, text);
  }
  tokenizer = await loadTokenizer(folder);
});

for (const [number, { rows, options, left }] of cases.entries()) {
  const { max_length, truncation_mode, completion_only_loss, assistant_only_loss } = options as Record<string, unknown>;
  const how: TokenizeOptions = {
    tokenizer,
    template: chatml,
    maxLength: max_length as number | undefined,
    truncation: truncation_mode as "keep_start" | "keep_end" | undefined,
    completionOnly: completion_only_loss as boolean | undefined,
    assistantOnly: assistant_only_loss as boolean | undefined,
  };
  Deno.test(`rows as SFTTrainer prepares them, ${number}: ${Object.keys(rows[0])}, ${JSON.stringify(options)}`, () =>
    inFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/a.json`, JSON.stringify(rows));
      const found: { ids: number[]; learned: number[] }[] = [];
      for await (const example of readExamples(`${folder}/a.json`, { kinds: ["text", "completion"] })) {
        const { ids, learned } = await tokenizeExample(example as Parameters<typeof tokenizeExample>[0], how);
        if (learned.includes(1)) found.push({ ids: [...ids], learned: [...learned] });
      }
      assertEquals(found, left);
    }));
}

for (const [number, { rows, options, left }] of preferences.entries()) {
  const { max_length: maxLength, truncation_mode } = options as { max_length?: number; truncation_mode?: string };
  const truncation = truncation_mode as "keep_start" | "keep_end" | undefined;
  Deno.test(`pairs as DPOTrainer prepares them, ${number}: ${Object.keys(rows[0])}, ${JSON.stringify(options)}`, () =>
    inFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/a.json`, JSON.stringify(rows));
      const found: { ids: number[]; learned: number[] }[][] = [];
      for await (const example of readExamples(`${folder}/a.json`, { kinds: ["preference"] })) {
        const pair = await tokenizePreference(example as Of<"preference">, { tokenizer, template: chatml });
        const { chosen, rejected } = preferenceRows(pair, { maxLength, truncation });
        if (!chosen.learned.includes(1) && !rejected.learned.includes(1)) continue;
        found.push([chosen, rejected].map(({ ids, learned }) => ({ ids: [...ids], learned: [...learned] })));
      }
      assertEquals(found, left);
    }));
}

Deno.test("pairs with equal or empty answers, and prompts without a token, are refused", async () => {
  const where = "a.jsonl, line 3", options = { tokenizer, template: chatml };
  const say = (content: string, more = {}) => [{ role: "assistant", content, ...more }];
  const refused = async (pair: Omit<Of<"preference">, "kind" | "where">, message: string, more = {}) =>
    assertEquals(
      (await assertRejects(
        () => tokenizePreference({ kind: "preference", where, ...pair }, { ...options, ...more }),
        DataError,
      ))
        .message,
      `${where}: ${message}`,
    );
  const equal = "chosen and rejected are equal; expected two answers, the first of them preferred";
  await refused({ prompt: "a", chosen: " b", rejected: " b" }, equal);
  await refused({ chosen: "a b", rejected: "a b" }, equal);
  await refused({ prompt: [{ role: "user", content: "a" }], chosen: say("b"), rejected: say("b") }, equal);
  await refused({ prompt: "a", chosen: "", rejected: "b" }, "chosen has no answer to the prompt: it is empty");
  await refused(
    { prompt: say("a"), chosen: say("b"), rejected: say("") },
    "rejected has no answer to the prompt: it is empty",
  );
  await refused(
    { chosen: "a b", rejected: "a" },
    "rejected has no answer to the prompt: the other answer begins with all of it",
  );
  await refused(
    { prompt: "a", chosen: "b<|endoftext|>", rejected: "b" }, // equal after an end token is appended to "b"
    "chosen and rejected have the same tokens; expected two answers, the first of them preferred",
  );
  await refused(
    { prompt: say("a"), chosen: say("b"), rejected: say("c") },
    "a conversation, but the model has no chat template; choose one with --template",
    { template: undefined },
  );
  const calls = { prompt: say("a"), chosen: say("", { tool_calls: [{}] }), rejected: say("c") };
  await tokenizePreference({ kind: "preference", where, ...calls }, options);

  const prompt = (prompt: Of<"prompt">["prompt"]) => tokenizePrompt({ kind: "prompt", where, prompt }, options);
  assertEquals(
    (await assertRejects(() => prompt(""), DataError)).message,
    `${where}: the prompt has no token; expected one or more`,
  );
  assertEquals(
    tokenizer.decode(await prompt([{ role: "user", content: "Hi" }])),
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
  );
  assertEquals(tokenizer.decode(await prompt("Hi")), "Hi"); // no end token is appended
});

Deno.test("rows without anything to learn, conversations without a template, and disallowed special tokens are refused", async () => {
  const where = "a.jsonl, line 3", text = { kind: "text", where, text: "a <|user|> b" } as const;
  const refused = async (
    example: Parameters<typeof tokenizeExample>[0],
    options: Partial<TokenizeOptions>,
    message: string,
  ) =>
    assertEquals(
      (await assertRejects(() => tokenizeExample(example, { tokenizer, ...options }), DataError)).message,
      `${where}: ${message}`,
    );
  const chat = { kind: "text", where, text: [{ role: "user", content: "a" }] } as const;
  await refused(chat, {}, "a conversation, but the model has no chat template; choose one with --template");
  await refused(
    chat,
    { template: chatml, assistantOnly: true },
    "no message of the assistant, and only its messages are learned",
  );
  await refused(
    text,
    { assistantOnly: true },
    "a plain text has no messages of an assistant; leave out --assistant_only_loss",
  );
  await refused(
    text,
    { special: {} },
    "The text contains the special token <|user|>; allow it, or encode it as ordinary text " +
      "(--special_tokens=allow or text; in code, allowedSpecial or disallowedSpecial)",
  );
  const asLetters = await tokenizeExample(text, {
    tokenizer,
    special: { disallowedSpecial: new Set() },
    endOfText: null,
  });
  assertEquals(tokenizer.decode(asLetters.ids), "a <|user|> b");
  assertEquals(asLetters.ids.length > (await tokenizeExample(text, { tokenizer })).ids.length, true);
});

Deno.test("reports when the end of a prompt merges with its completion into one token", async () => {
  const of = async (prompt: string, completion: string) => {
    const row = await tokenizeExample({ kind: "completion", where: "", prompt, completion }, { tokenizer });
    return [row.merged, labelCount(row)];
  };
  const [whole] = tokenizer.encode("the"), parts = tokenizer.encode("th").length;
  assertEquals([tokenizer.decode([whole]), parts > 0], ["the", true]); // one token
  assertEquals(await of("th", "e"), [true, 1]); // [the] and the end: the first token has no loss
  assertEquals(await of("the", ""), [false, 1]);
});

Deno.test("rows are stored next to each other and read back unchanged", () => {
  const rows = new TokenRows(), generator = new RandomGenerator(1);
  const made = Array.from({ length: 300 }, () => {
    const length = generator.randint(100);
    return {
      ids: Int32Array.from({ length }, () => generator.randint(1000)),
      learned: new Uint8Array(length).fill(1, length >> 1),
    };
  });
  for (const row of made) rows.push(row);
  assertEquals([rows.length, rows.tokens], [300, made.reduce((sum, { ids }) => sum + ids.length, 0)]);
  made.forEach((row, i) => assertEquals([rows.row(i), rows.lengthOf(i)], [row, row.ids.length]));
  assertThrows(() => rows.row(300), RangeError, "There is no row 300 of 300");
});

Deno.test("epochs take rows in accelerate's order", () => {
  for (const { length, seed, order } of orders) {
    const epochs = new Epochs(length, { seed });
    assertEquals(order.map(() => epochs.next()), order);
    assertEquals(epochs.epoch, 3);
  }
});

Deno.test("epochs resume where they were; without shuffling they keep the rows' order", () => {
  const [, , { length, seed, order }] = orders, epochs = new Epochs(length, { seed });
  for (let i = 0; i < order.length; i++) {
    const again = new Epochs(length, { seed });
    again.restore(JSON.parse(JSON.stringify(epochs.state())), "state.json");
    assertEquals([again.next(), epochs.next()], [order[i], order[i]]);
  }
  const plain = new Epochs(3, { seed: 1, shuffle: false });
  assertEquals(Array.from({ length: 7 }, () => plain.next()), [0, 1, 2, 0, 1, 2, 0]);
  for (const wrong of [null, {}, { epoch: 0, place: 3 }, { epoch: -1, place: 0 }, { epoch: 0, place: 0.5 }]) {
    assertThrows(() => plain.restore(wrong, "state.json"), CheckpointError, "state.json is damaged");
  }
  assertThrows(() => new Epochs(0, { seed: 1 }), RangeError);
});

Deno.test("held-out rows are the first rows of PyTorch's order", () => {
  for (const { length, seed, order } of heldOut) {
    const { train, held } = holdOut(length, { share: 0.1, seed }), count = Math.ceil(length / 10);
    assertEquals([...held], order.slice(0, count).toSorted((a, b) => a - b));
    assertEquals([...train], order.slice(count).toSorted((a, b) => a - b));
  }
  assertEquals(holdOut(3, { share: 0, seed: 1 }), { train: Int32Array.of(0, 1, 2), held: new Int32Array() });
  assertEquals(holdOut(1, { share: 0.5, seed: 1 }).train.length, 1);
});
