/**
 * Asks models questions that they were not trained on, and counts the answers that are correct in every letter:
 *
 *     deno run --allow-read --allow-env examples/chat/score.ts FILE.jsonl MODEL …
 *
 * FILE has chats. Each of the assistant's answers is generated after the correct answers before it. A model without a
 * chat template gets the chat as plain lines.
 */
import { createDevice } from "../../mod.ts";
import { readExamples } from "../../src/data/mod.ts";
import { loadPretrained, pipeline } from "../../src/pretrained/mod.ts";
import type { Message } from "../../src/data/mod.ts";

const [file, ...models] = Deno.args;
const asked: { before: Message[]; answer: string }[] = [];
for await (const example of readExamples(file, { kinds: ["text"] })) {
  const said = example.kind === "text" && typeof example.text !== "string" ? example.text : [];
  for (const [i, { role, content }] of said.entries()) {
    if (role === "assistant") asked.push({ before: said.slice(0, i), answer: String(content) });
  }
}

const device = await createDevice("cpu");
for (const name of models) {
  const loaded = await loadPretrained(name, { device, inference: true });
  using generate = await pipeline("text-generation", loaded);
  const options = { doSample: false, maxNewTokens: 80, returnFullText: false } as const;
  const answers = loaded.chatTemplate
    ? await generate(asked.map(({ before }) => before), options)
    : await generate(asked.map(({ before }) => before.map(({ content }) => `${content}\n`).join("")), options);
  const said = answers.map(([{ generatedText }]) => generatedText.split("\n")[0]);
  const wrong = [...asked.keys()].filter((i) => said[i] !== asked[i].answer), right = asked.length - wrong.length;
  console.log(`${name}: ${right} of ${asked.length} answers (${(100 * right / asked.length).toFixed(1)} %)`);
  for (const i of wrong.slice(0, 1)) {
    console.log(`  ${asked[i].before.at(-1)!.content}\n  ${said[i]}\n  instead of ${asked[i].answer}`);
  }
}
device.close();
