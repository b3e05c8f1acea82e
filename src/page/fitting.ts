/**
 * Finds how much of a text can be sent. A model's context is limited in tokens, and only the server can count a text's
 * tokens.
 */
import { Failure, type Model } from "./api.ts";

/** Characters per token by model, estimated from the server's errors. */
const ratios = new Map<string, number>();
/** Characters per token. A vocabulary of fewer than 512 tokens probably has one token for each character. */
const ratioOf = (id: string, vocabSize: number): number => ratios.get(id) ?? (vocabSize < 512 ? 1 : 6);

/** The end of a text that probably fits into the context together with `room` new tokens. */
function fitted(text: string, { id, context_length, vocab_size }: Model, room: number): string {
  const most = Math.max(1, Math.floor((context_length - room) * (ratioOf(id, vocab_size))));
  const cut = Math.max(0, text.length - most);
  return text.slice(cut > 0 && /[\udc00-\udfff]/.test(text[cut]) ? cut + 1 : cut);
}
/** Sends the end of a text, as much as fits into the context. If the server refuses it as too long, sends less. */
export async function fitting<T>(
  text: string,
  model: Model,
  room: number,
  ask: (prompt: string) => Promise<T>,
): Promise<T> {
  for (;;) {
    const prompt = fitted(text, model, room);
    try {
      return await ask(prompt);
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== "context_length_exceeded" || prompt.length < 2) throw error;
      const tokens = Number(/(\d+) in the prompt/.exec(error.message)?.[1] ?? prompt.length);
      ratios.set(model.id, Math.min(0.8 * ratioOf(model.id, model.vocab_size), prompt.length / tokens));
    }
  }
}
