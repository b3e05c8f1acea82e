/** Chat templates that fail, chats that they reject, special tokens added to any tokenizer, and the end of a turn. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ChatTemplate, chatTokenizer, type Message } from "../../src/data/mod.ts";
import { encodeParts } from "../../src/data/chat_template.ts";
import { DataError } from "../../src/errors.ts";
import {
  CharacterTokenizer,
  loadTokenizer,
  type Tokenizer,
  tokenizerFromJSON,
  WordTokenizer,
} from "../../src/tokenizer/mod.ts";
import { processorTime } from "../testing.ts";

const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });
const chat = [user("abc"), assistant("cab")];

async function refused(source: string, messages: readonly Message[], expected: string, seconds = 30): Promise<void> {
  using template = new ChatTemplate(source, { name: "x.jinja", seconds, megabytes: 64, characters: 1000 });
  await assertRejects(() => template.encode(characters, messages), DataError, expected);
  // After an error, the worker still renders other chats and templates.
  using other = new ChatTemplate("{{ messages[0].content }}");
  assertEquals(await other.render(messages.length > 0 ? [user("b")] : chat), messages.length > 0 ? "b" : "abc");
}

const characters = CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz \n");

Deno.test("a template that fails is an error that says why, and its time and memory are limited", async () => {
  await refused("{% for message in messages %}", chat, "x.jinja does not parse: ");
  await refused("{{ messages[0].content | backwards }}", chat, "x.jinja fails: ");
  await refused("{{ os.system('ls') }}", chat, "x.jinja fails: ");
  await refused("{{ raise_exception('no ' ~ messages[0].role) }}", chat, "x.jinja says: no user");
  await refused("{% for i in range(10000) %}a{% endfor %}", chat, "x.jinja gives more than 1000 characters");
  const forever = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
  await refused(forever, chat, "x.jinja takes more than 1 seconds", 1);
  await refused(
    "{% set all = namespace(a=['b']) %}{% for i in range(40) %}{% set all.a = all.a + all.a %}{% endfor %}",
    chat,
    "x.jinja takes more than 64 MB of memory",
    60,
  );
  await refused("{{ strftime_now('%Q') }}", chat, "strftime_now does not support %Q");
});

Deno.test("an invalid chat is rejected, with the number of the message", async () => {
  const plain = chatTokenizer(characters, "plain");
  using template = ChatTemplate.of(plain)!;
  await assertRejects(() => template.render([]), DataError, "at least one message");
  await assertRejects(
    () => template.render([user("a"), { content: "b" } as unknown as Message]),
    DataError,
    "Message 2",
  );
  await assertRejects(
    () => template.render([user("a"), { role: "assistant", content: null } as unknown as Message]),
    DataError,
    "the content of message 2 (role assistant) is not a text",
  );
  assertEquals(ChatTemplate.of(characters), undefined);
});

Deno.test("without {% generation %}, a template that rewrites earlier messages is rejected", async () => {
  await refused(
    "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}",
    [...chat, ...chat],
    "up to message 2",
  );
  const filtered = "{% filter upper %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endfilter %}";
  await refused(filtered, chat, "changes the text in {% generation %} after writing it");
});

Deno.test("a request fails if its worker is disposed of, and a template renders again after a timeout", async () => {
  const source =
    "{% if messages[0].content == 'a' %}{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}" +
    "{% endfor %}{% endif %}{{ messages[0].content }}";
  const template = new ChatTemplate(source, { seconds: 1 });
  await assertRejects(() => template.render([user("a")]), DataError, "takes more than 1 seconds");
  assertEquals(await Promise.all(["b", "c"].map((text) => template.render([user(text)]))), ["b", "c"]);
  const ended = assertRejects(() => template.render([user("a")]), DataError, "was disposed");
  await new Promise((resolve) => setTimeout(resolve, 300));
  template[Symbol.dispose]();
  await ended;
  // The disposed worker's loop ends, too, when its time is over.
  for (let used = Infinity, i = 0; used > 20; i++) {
    assert(i < 100, "a thread goes on");
    const before = processorTime();
    await new Promise((resolve) => setTimeout(resolve, 200));
    used = processorTime() - before;
  }
});

Deno.test("special tokens can be added to any tokenizer, and are saved with it", async () => {
  const words = new WordTokenizer({ words: ["one", "two", "three"] }), gpt2 = await loadTokenizer("gpt2");
  for (
    const [tokenizer, text] of [[characters, "abc"], [words, "one two "], [gpt2, "Grüße 😀"]] as [Tokenizer, string][]
  ) {
    const { vocabSize } = tokenizer, added = chatTokenizer(tokenizer.withSpecialTokens(["<a>"]), "chatml");
    assertEquals(added.vocabSize, vocabSize + 3);
    assertEquals(tokenizer.vocabSize, vocabSize);
    assertEquals(chatTokenizer(added, "chatml").toJSON(), added.toJSON()); // `added` already has the template's tokens
    const again = await tokenizerFromJSON(JSON.parse(JSON.stringify(added)));
    for (const each of [added, again]) {
      assertEquals(each.toJSON(), added.toJSON());
      const ids = each.encode(`<a>${text}<|im_end|>`, { allowedSpecial: "all" });
      assertEquals([...ids], [vocabSize, ...tokenizer.encode(text), vocabSize + 2]);
      assertThrows(() => each.encode("<a>"), DataError, "special token <a>");
      using template = ChatTemplate.of(each)!;
      assertEquals(await template.endOfTurn(each), { ids: [vocabSize + 2], strings: [] });
    }
  }
  assertThrows(
    () => new WordTokenizer({ vocabSize: 9 }).withSpecialTokens(["<a>"]),
    DataError,
    "Cannot add special tokens to a vocabulary of numbers",
  );
  assertThrows(() => characters.withSpecialTokens([""]), DataError, "empty");
});

Deno.test("a token that is only partly the assistant's counts as the assistant's", async () => {
  const gpt2 = await loadTokenizer("gpt2");
  const parts = [{ text: "a 😀b:", assistant: false }, { text: " hé😀", assistant: true }, {
    text: "😀 c",
    assistant: false,
  }];
  const { ids, assistant } = encodeParts(gpt2, parts);
  assertEquals(ids, [...gpt2.encode("a 😀b: hé😀😀 c")]);
  const text = gpt2.decode(ids.filter((_, i) => assistant[i]));
  assertEquals(text, " hé😀");
  // A token that covers two parts counts as the assistant's, if one part is the assistant's.
  const inside = encodeParts(gpt2, [{ text: "hel", assistant: false }, { text: "lo", assistant: true }]);
  assertEquals(inside, { ids: [...gpt2.encode("hello")], assistant: [true] });
});

Deno.test("a turn ends at a special token, or at the text before the next turn", async () => {
  const written =
    "{% for m in messages %}{{ '\n' if not loop.first }}{{ m.role }}: {{ m.content }}{% endfor %}{{ '\nassistant: ' if add_generation_prompt }}";
  const tokenizer = chatTokenizer(characters, written);
  using template = ChatTemplate.of(tokenizer)!;
  assertEquals(await template.render(chat, { addGenerationPrompt: true }), "user: abc\nassistant: cab\nassistant: ");
  assertEquals(await template.endOfTurn(tokenizer), { ids: [], strings: ["\nuser:"] });
  using loud = new ChatTemplate("{{ messages[0].content | upper }}", { name: "x.jinja" });
  await assertRejects(
    () => loud.endOfTurn(tokenizer),
    DataError,
    "x.jinja changes the text of the assistant's message",
  );
  const { ids, assistant } = await template.encode(
    CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz: \n"),
    [...chat, user("b")],
  );
  assert(ids.length === assistant.length);
  assertEquals(assistant.lastIndexOf(true) - assistant.indexOf(true) + 1, "cab".length);
});
