/**
 * Vercel's AI SDK in Deno: chats, streams with usage, completions, embeddings.
 *
 * Usage: deno run ai_sdk.ts URL COMPLETION_MODEL CHAT_MODEL
 */
import { assert, assertEquals } from "@std/assert";
import { importNpm } from "../../scripts/npm.ts";

const [baseURL, model, chatModel] = Deno.args;
const { embed, generateText, streamText } = await importNpm("ai");
const { createOpenAICompatible } = await importNpm("@ai-sdk/openai-compatible");
const provider = createOpenAICompatible({ name: "nanogpt", baseURL, includeUsage: true });
const ask = { model: provider.chatModel(chatModel), prompt: "hi", maxOutputTokens: 6, temperature: 0, maxRetries: 0 };
const { text, usage, finishReason } = await generateText(ask);
assert(usage.outputTokens > 0);
assert(["stop", "length"].includes(finishReason));
const stream = streamText(ask);
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
assertEquals(streamed, text);
assertEquals((await stream.usage).outputTokens, usage.outputTokens);
const going = {
  model: provider.completionModel(model),
  prompt: "the ",
  maxOutputTokens: 6,
  temperature: 0,
  maxRetries: 0,
};
assert((await generateText(going)).usage.outputTokens > 0);
const { embedding } = await embed({ model: provider.embeddingModel(model), value: "a", maxRetries: 0 });
assert(Math.abs(Math.hypot(...embedding) - 1) < 1e-5);
console.log("checks passed");
