/**
 * Writes the training and test data of the chat example: `deno run --allow-write examples/chat/make_data.ts [FOLDER]`.
 */
import { RandomGenerator } from "../../src/random/mod.ts";
import { Town } from "./town.ts";

const [folder = "out-town"] = Deno.args;
const town = new Town(), generator = new RandomGenerator(1);
const lines = (count: number, line: () => string) => Array.from({ length: count }, line).join("\n") + "\n";
const chats = (count: number, heldOut: boolean) =>
  lines(count, () => JSON.stringify({ messages: town.chat(generator, heldOut) }));

await Deno.mkdir(folder, { recursive: true });
await Deno.writeTextFile(`${folder}/town.txt`, lines(10_000, () => town.story(generator)));
await Deno.writeTextFile(`${folder}/chats.jsonl`, chats(4000, false));
await Deno.writeTextFile(`${folder}/held_out.jsonl`, chats(200, true));
console.log(`${folder}/town.txt, chats.jsonl and held_out.jsonl`);
