/**
 * Collects choices between two answers and turns them into rows for training. The choices are made by a simulated
 * listener, whose taste the models do not know (tunes.ts), or by a user at the terminal.
 */
import type { GPT } from "@nanogpt/ts";
import { TokenRows } from "@nanogpt/ts/data";
import { HeadRows, Roller, type Rollout } from "@nanogpt/ts/finetune";
import { ANSWERS, END, PROMPTS, taste, tokenizer } from "./tunes.ts";

/** Two answers to a prompt, the better one first. */
export interface Choice {
  readonly prompt: string;
  readonly chosen: Rollout;
  readonly rejected: Rollout;
}

/** The text of an answer. */
export const answerOf = ({ ids, from }: Pick<Rollout, "ids" | "from">): string => tokenizer.decode(ids.subarray(from));

/** Chooses the better of two different answers to a prompt: 0 or 1, or undefined to end the questions. */
export type Listener = (prompt: string, answers: readonly [string, string]) => Promise<0 | 1 | undefined>;

/**
 * A listener that follows the model of Bradley and Terry: it chooses answer a with probability σ(taste(a) − taste(b)),
 * so it sometimes chooses the worse answer.
 */
export function hiddenListener(draw: () => number): Listener {
  return (prompt, [a, b]) => Promise.resolve(draw() < 1 / (1 + Math.exp(taste(prompt, b) - taste(prompt, a))) ? 0 : 1);
}

/**
 * A listener that asks for a key at the terminal. If standard input is a pipe, it reads the answers from the pipe, many
 * at a time.
 */
export function humanListener(print: (line: string) => void = console.log): Listener & Disposable {
  const { stdin } = Deno, raw = stdin.isTerminal(), bytes = new Uint8Array(64), keys: string[] = [];
  if (raw) stdin.setRaw(true, { cbreak: true });
  print("Which tune is better? Press 1 or 2, or q to end the questions.");
  const listen: Listener = async (prompt, [a, b]) => {
    print(`\nA tune that begins with ${prompt[0]}:   1  ${a}   2  ${b}`);
    while (keys.length === 0) {
      const read = await stdin.read(bytes);
      if (read === null) return undefined;
      keys.push(...new TextDecoder().decode(bytes.subarray(0, read)).match(/[12q]/g) ?? []);
    }
    const key = keys.shift();
    return key === "q" ? undefined : key === "1" ? 0 : 1;
  };
  return Object.assign(listen, { [Symbol.dispose]: () => raw && stdin.setRaw(false) }) as Listener & Disposable;
}

/** Generates two answers to each prompt in turn, and lets the listener choose. */
export async function choices(
  policy: GPT,
  { count, seed, listener }: { count: number; seed: number; listener: Listener },
): Promise<Choice[]> {
  using roller = new Roller(policy, { maxNewTokens: ANSWERS.length, eosTokenId: END });
  const found: Choice[] = [], asked = PROMPTS.map((prompt) => tokenizer.encode(prompt));
  for (let first = 0; found.length < count;) {
    const prompts = Array.from({ length: 64 }, (_, i) => asked[(first / 2 + (i >> 1)) % asked.length]);
    const written = await roller.roll(prompts, { seed, first });
    for (let i = 0; i < written.length && found.length < count; i += 2) {
      const prompt = PROMPTS[(first + i) / 2 % asked.length], [a, b] = [written[i], written[i + 1]];
      if (answerOf(a) === answerOf(b)) continue;
      const better = await listener(prompt, [answerOf(a), answerOf(b)]);
      if (better === undefined) return found;
      found.push(better === 0 ? { prompt, chosen: a, rejected: b } : { prompt, chosen: b, rejected: a });
    }
    first += written.length;
  }
  return found;
}

/** Rows for a reward model. */
export function rankings(choices: readonly Choice[]): HeadRows {
  const rows = new HeadRows();
  for (const [i, { chosen, rejected }] of choices.entries()) {
    rows.add([chosen.ids, rejected.ids], { where: `choice ${i}`, label: 0 });
  }
  return rows;
}

/** Rows for DPO. */
export function preferences(choices: readonly Choice[]): TokenRows {
  const rows = new TokenRows();
  for (const { chosen, rejected } of choices) {
    for (const { ids, from } of [chosen, rejected]) {
      rows.push({ ids, learned: new Uint8Array(ids.length).fill(1, from) });
    }
  }
  return rows;
}
