/**
 * `deno task chat`: a conversation in the terminal. If standard input is a pipe, each line is a message. Only the
 * answers go to standard output.
 */
import { ChatTemplate } from "../data/chat_template.ts";
import { BUILT_IN_CHATS } from "../data/built_in_chats.ts";
import { Profile } from "../engine/profile.ts";
import { ConfigError, DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { Chat } from "../pretrained/chat.ts";
import type { Pretrained } from "../pretrained/load.ts";
import { command, describeError, taskCommand } from "./command.ts";
import { int, text, type Values } from "./flags.ts";
import { INTERRUPTED, SAME_PRESS } from "./interrupt.ts";
import { type Progress, write } from "./progress.ts";
import { chatting } from "./row_flags.ts";
import { loadNamed, openDevice } from "./run_model.ts";
import { cacheFlag, samplingFlags, samplingOptions, seedFlag } from "./sample_flags.ts";
import { checkPermission, deviceFlags, modelFlags, torchFlags } from "./shared_flags.ts";

export const chatFlags = {
  ...modelFlags,
  tokenizer: text(
    "",
    "tokenizer to use instead of the model's, or for a ckpt.pt, which stores none: gpt2, or a folder",
  ),
  template: text(
    "",
    `chat template to use instead of the model's: ${Object.keys(BUILT_IN_CHATS).join(", ")}, or a Jinja file`,
  ),
  system: text("", "the system message, which comes before the first message"),
  max_new_tokens: int(256, "maximum number of tokens in an answer", { min: 1 }),
  ...samplingFlags({ temperature: 0.7, topK: 50 }),
  cache: cacheFlag,
  seed: seedFlag,
  ...deviceFlags,
  ...torchFlags,
};

/** Commands that can be typed instead of a message. */
const COMMANDS: Readonly<Record<string, string>> = {
  "/reset": "starts a new chat",
  "/system TEXT": "starts a new chat with this system message",
  "/save FILE": "appends the chat to a file as a line of JSON, which finetune can read",
  "/help": "shows this help",
};
const HELP = Object.entries(COMMANDS).map(([form, does]) => `  ${form.padEnd(14)}${does}`).join("\n") +
  "\n  Ctrl-C stops an answer; Ctrl-D ends the chat. Type // to begin a message with a slash.";

export const chat = command({
  name: "chat",
  flags: chatFlags,
  output: Deno.stderr, // only the answers go to standard output
  help: {
    does:
      "Chats with a model that was fine-tuned on conversations. If standard input is a pipe, each line is a message.",
    usage: "--out_dir=out-tuned",
    notes: `Commands in the chat:\n${HELP}\n\n`,
  },
  async run({ values, progress }) {
    checkPermission(values.device, "chat");
    const device = await openDevice(values), loaded = await loadNamed(values, device, progress);
    if (values.profile) device.profile = new Profile();
    using template = await templateOf(values, loaded);
    progress.end();
    const onNote = (line: string) => progress.line(line), { max_new_tokens: maxNewTokens, cache, seed } = values;
    const options = { template, system: values.system, maxNewTokens, cache, seed, onNote, ...samplingOptions(values) };
    using talk = await Chat.begin(loaded, options);
    await converse(talk, progress);
    if (device.profile) progress.line(device.profile.table());
    device.close();
  },
});

/** The chat template that the flag names, or the model's own. */
async function templateOf(
  { template: named }: Pick<Values<typeof chatFlags>, "template">,
  { chatTemplate, tokenizer }: Pretrained,
): Promise<ChatTemplate> {
  const names = Object.keys(BUILT_IN_CHATS).join(", ");
  if (!named && chatTemplate) return chatTemplate;
  if (!named) {
    throw new ConfigError(
      `The model has no chat template: pass --template=${names.replaceAll(", ", "|")} or a Jinja file\n` +
        `Only a model that was fine-tuned on conversations can answer. To fine-tune one: ${
          taskCommand("finetune", ["--data=FILE.jsonl", "--init_from=MODEL", "--template=chatml"])
        }`,
    );
  }
  const builtIn = Object.hasOwn(BUILT_IN_CHATS, named) ? BUILT_IN_CHATS[named] : undefined;
  const missing = builtIn?.tokens.find((token) => !tokenizer.specialTokens?.has(token));
  if (missing !== undefined) {
    throw new ConfigError(
      `--template=${named} uses the token ${missing}, which the model does not have: fine-tune it with this template first`,
    );
  }
  return ChatTemplate.of(await chatting(tokenizer, named), { name: `The chat template ${named}` })!;
}

/** Reads messages until there are no more. */
async function converse(talk: Chat, progress: Progress): Promise<void> {
  const terminal = Deno.stdin.isTerminal(), prompt = () => terminal && write(Deno.stdout, "> ");
  let answering: AbortController | undefined, pressed = -Infinity;
  Deno.addSignalListener("SIGINT", () => {
    // `deno task` forwards a Ctrl-C that the terminal has already sent to this process.
    if (performance.now() - pressed < SAME_PRESS) return;
    pressed = performance.now();
    if (!answering) {
      if (terminal) write(Deno.stdout, "\n");
      Deno.exit(INTERRUPTED);
    }
    answering.abort();
  });
  if (terminal) progress.line("Type a message, or /help. Ctrl-D ends the chat.");
  prompt();
  for await (const line of lines()) {
    try {
      if (/^\/(?!\/)/.test(line)) await obey(line, talk, progress);
      else if (line.trim() !== "") {
        answering = new AbortController();
        await answer(talk, line.replace(/^\/\//, "/"), { signal: answering.signal });
      }
    } catch (error) {
      // In a terminal, the user can type another message after one that failed.
      if (!terminal || !(error instanceof DataError)) throw error;
      progress.line(`error: ${describeError(error)}`);
    }
    answering = undefined;
    prompt();
  }
  if (terminal) write(Deno.stdout, "\n");
}

async function answer(talk: Chat, message: string, options: { signal: AbortSignal }): Promise<void> {
  let last = "";
  for await (const piece of talk.answer(message, options)) {
    write(Deno.stdout, piece);
    last = piece;
  }
  const end = talk.finishReason === "stop" ? "" : "…";
  if (end || !last.endsWith("\n")) write(Deno.stdout, `${end}\n`);
}

/** Carries out a command. @throws {DataError} if it is not a valid command, or its file cannot be written */
async function obey(line: string, talk: Chat, progress: Progress): Promise<void> {
  const [, name, rest] = /^(\/\S*)\s*(.*?)\s*$/.exec(line)!;
  if (name === "/reset" && !rest) talk.reset();
  else if (name === "/system" && rest) talk.reset(rest);
  else if (name === "/save" && rest) {
    const row = JSON.stringify({ messages: talk.messages });
    await Deno.writeTextFile(rest, `${row}\n`, { append: true }).catch((error) => {
      throw new DataError(`Cannot write ${rest}: ${reason(error)}`);
    });
    progress.line(`Saved ${talk.messages.length} messages to ${rest}`);
  } else if (name === "/help") progress.line(HELP);
  else throw new DataError(`${line.slice(0, 40)}: expected ${Object.keys(COMMANDS).join(", ")}`);
}

/** The lines of standard input, as they arrive. */
async function* lines(): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split(/\r?\n/);
    rest = parts.pop()!;
    yield* parts;
  }
  if (rest) yield rest;
}
