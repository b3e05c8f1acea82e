/** How much of a text can be sent: a model sees only so many tokens at once, and how many a text has is known to the server alone. */
import { Failure, type Model } from "./api.ts";

/** Characters a token, by model: how much of a long text fits into what the model sees is known only after a first answer. */
const ratios = new Map<string, number>();
/** In a vocabulary of characters each is a token. */
const ratioOf = (id: string, vocabSize: number): number => ratios.get(id) ?? (vocabSize < 512 ? 1 : 6);

/** The end of a text, so long that it fits beside `room` tokens, as far as is known. */
function fitted(text: string, { id, context_length, vocab_size }: Model, room: number): string {
  const most = Math.max(1, Math.floor((context_length - room) * (ratioOf(id, vocab_size))));
  const cut = Math.max(0, text.length - most);
  return text.slice(cut > 0 && /[\udc00-\udfff]/.test(text[cut]) ? cut + 1 : cut);
}
/** Asks with as much of the text as fits: where it was too much, again with less. */
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
      const tokens = Number(/(\d+) of the prompt/.exec(error.message)?.[1] ?? prompt.length);
      ratios.set(model.id, Math.min(0.8 * ratioOf(model.id, model.vocab_size), prompt.length / tokens));
    }
  }
}
