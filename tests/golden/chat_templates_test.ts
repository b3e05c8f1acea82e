/** Chat templates against transformers, whose texts, ids and masks chat_templates.py recorded. */
import { assertEquals, assertRejects } from "@std/assert";
import { ChatTemplate, type Message } from "../../src/data/mod.ts";
import { DataError } from "../../src/errors.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";

interface Rendered {
  readonly text: string;
  readonly ids: readonly number[];
  /** For each token, 1 if the assistant writes it, otherwise 0. */
  readonly mask: string;
  /** The ids with `sanitize_control_tokens`, if they differ. */
  readonly safe?: readonly number[];
}
interface Case {
  readonly template: string;
  readonly chat: string;
  readonly tools: boolean;
  readonly error?: string;
  readonly plain: Rendered;
  readonly prompted: Rendered;
  /** The text with `continue_final_message`; null if the template leaves the message out. */
  readonly continued?: string | null;
}
interface Golden {
  readonly now: readonly [number, number, number, number, number, number];
  readonly files: Readonly<Record<string, unknown>>;
  readonly templates: Readonly<Record<string, string>>;
  readonly tools: readonly unknown[];
  readonly chats: Readonly<Record<string, readonly Message[]>>;
  readonly cases: readonly Case[];
}

const golden: Golden = JSON.parse(await Deno.readTextFile(new URL("chat_templates.json", import.meta.url)));
const [year, month, ...rest] = golden.now, now = new Date(year, month - 1, ...rest);
/** Templates whose output for the beginning of a chat depends on its end, such as on the number of messages. */
const REFUSED = /^(mistral system|loop_controls .*)$/;

for (const [name, source] of Object.entries(golden.templates)) {
  const cases = golden.cases.filter(({ template }) => template === name);
  Deno.test(`${name}: ${cases.length} chats have transformers' texts, ids and masks`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      for (const [file, json] of Object.entries(golden.files)) {
        await Deno.writeTextFile(`${folder}/${file}`, JSON.stringify(json));
      }
      const tokenizer = await loadTokenizer(folder), specialTokens = tokenizer.toJSON().special_tokens as object;
      const tagged = source.replaceAll("{G}", "{% generation %}").replaceAll("{E}", "{% endgeneration %}");
      using marked = new ChatTemplate(tagged, { specialTokens: { ...specialTokens } });
      // Built-in templates are recognised by their text. With a comment added, the template is not a built-in one.
      using worker = new ChatTemplate(`${tagged}{# #}`, { specialTokens: { ...specialTokens } });
      using bare = new ChatTemplate(source.replaceAll("{G}", "{% if true %}").replaceAll("{E}", "{% endif %}"), {
        specialTokens: { ...specialTokens },
      });
      for (const { chat, tools, error, ...expected } of cases) {
        const messages = golden.chats[chat];
        for (const form of ["plain", "prompted"] as const) {
          const options = { tools: tools ? golden.tools : undefined, addGenerationPrompt: form === "prompted", now };
          if (error !== undefined) {
            await assertRejects(() => marked.render(messages, options), DataError, error);
            continue;
          }
          const { text, ids, mask } = expected[form], where = `${chat}, ${form}`;
          assertEquals(await marked.render(messages, options), text, where);
          const bits = (of: readonly boolean[]) => of.map(Number).join("");
          assertEquals(await worker.render(messages, options), text, where);
          const encoded = await marked.encode(tokenizer, messages, options);
          assertEquals([encoded.ids, bits(encoded.assistant)], [ids, mask], where);
          const contents = "text", safe = expected[form].safe ?? ids;
          assertEquals(await marked.ids(tokenizer, messages, { ...options, contents }), safe, where);
          const guarded = await marked.encode(tokenizer, messages, { ...options, contents });
          assertEquals(guarded.ids, safe, where);
          const of = (found: typeof encoded) => tokenizer.decode(found.ids.filter((_, i) => found.assistant[i]));
          assertEquals(of(guarded), of(encoded), where);
          if (REFUSED.test(`${name} ${chat}`)) {
            await assertRejects(() => bare.encode(tokenizer, messages, options), DataError, "has no {% generation %}");
            continue;
          }
          const prefixed = await bare.encode(tokenizer, messages, options);
          assertEquals(prefixed.ids, ids, where);
          if (name === "macros") continue; // this template also marks the user's words
          // Every token of an assistant's turn is marked, including the line break after it, and no other token.
          const more = prefixed.assistant.flatMap((found, i) => found === (mask[i] === "1") ? [] : [i]);
          for (const i of more) {
            const { assistant } = prefixed;
            assertEquals([assistant[i - 1], assistant[i], tokenizer.decode([ids[i]])], [true, true, "\n"], where);
          }
        }
        if (expected.continued === undefined) continue;
        const unfinished = { tools: tools ? golden.tools : undefined, continueFinalMessage: true, now };
        const { continued } = expected, render = () => marked.render(messages, unfinished);
        if (continued === null) await assertRejects(render, DataError, "does not write the last message");
        else assertEquals(await render(), continued, chat);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
