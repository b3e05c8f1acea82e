/**
 * The page's part *Chat*: a chat with a model that has a chat template. Answers can be stopped, generated again, and
 * compared in pairs.
 */
import { events } from "./api.ts";
import { begun } from "./chat_request.ts";
import { button, download, find, make, store, stored } from "./dom.ts";
import { prefer, type Turn } from "./preferences.ts";
import { length, sampling, seed } from "./sampling.ts";
import { allModels, choose, fail, model } from "./state.ts";

interface Shown extends Turn {
  /** For an answer: its tokens and speed, and why it ended early. */
  readonly note?: string;
}
interface Chunk {
  readonly choices: readonly {
    readonly index: number;
    readonly delta: { readonly content?: string | null };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: { readonly completion_tokens: number } | null;
}

const NAME = "nanogpt chat";
const list = find("turns"), draft = find<HTMLTextAreaElement>("draft"), system = find<HTMLTextAreaElement>("system");
const send = find<HTMLButtonElement>("send"), two = find<HTMLButtonElement>("two");
let turns: Shown[] = stored<Shown[]>(sessionStorage, NAME) ?? [];
let running: AbortController | undefined;
/** Two answers from which the user chooses. */
let rivals: readonly string[] | undefined;
/** The messages that were sent for the last answer. */
let asked: readonly Turn[] = [];
/** The turn that is being edited, and its editor. */
let editing: { readonly turn: Shown; readonly item: HTMLElement } | undefined;
/** The elements of turns. Unchanged turns retain their elements, so that screen readers read only new ones. */
const items = new WeakMap<Shown, HTMLElement>();

const messages = (before: readonly Shown[] = turns): Turn[] => [
  ...system.value.trim() ? [{ role: "system", content: system.value } as const] : [],
  ...before.map(({ role, content }) => ({ role, content })),
];

function draw(): void {
  const chosen = model(), able = chosen?.chat ?? false, busy = running !== undefined;
  const follow = innerHeight + scrollY > document.documentElement.scrollHeight - 80; // not if the user has scrolled up
  store(sessionStorage, NAME, turns);
  const wanted = turns.map((turn) => editing?.turn === turn ? editing.item : itemOf(turn));
  if (rivals) wanted.push(make("li", { className: "rivals" }, ...rivals.map(rivalOf)));
  wanted.forEach((item, i) => {
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  while (list.children.length > wanted.length) list.lastChild!.remove();
  list.ariaBusy = String(busy);
  find("no-template").hidden = able || !chosen;
  find("no-template").replaceChildren(...able ? [] : suggestion(chosen?.id ?? ""));
  find("chat-empty").hidden = turns.length > 0 || !able;
  draft.disabled = !able || rivals !== undefined;
  send.textContent = busy ? "Stop" : "Send";
  send.disabled = !able || rivals !== undefined && !busy;
  two.disabled = !able || busy || rivals !== undefined;
  if (follow && turns.length > 0 && !find("chat").hidden) scrollTo(0, document.documentElement.scrollHeight);
}

function suggestion(id: string): (Node | string)[] {
  const others = allModels().filter(({ chat }) => chat).map(({ id }) => button(id, () => choose(id)));
  const words = `${id} has no chat template. `;
  return others.length > 0 ? [words, "Models with a chat template: ", ...others] : [
    words,
    "Fine-tune it on conversations with the command ",
    make("code", {}, "finetune --task=sft --data=chats.jsonl"),
    ".",
  ];
}

const NAMES = { system: "System", user: "You", assistant: "Model" };

function itemOf(turn: Shown): HTMLElement {
  const known = items.get(turn);
  if (known) return known;
  const { role, content, note } = turn, item = make("li", { className: role }, make("h2", {}, NAMES[role]));
  const tools = make("div", { className: "tools" });
  if (note) tools.append(make("span", { className: "note" }, note));
  tools.append(button("Edit", () => edit(turn), { ariaLabel: `Edit: ${content.slice(0, 40)}` }));
  if (role === "assistant") tools.append(button("Answer again", () => redo(turn), { className: "again" }));
  item.append(make("p", { className: "text" }, content), tools);
  items.set(turn, item);
  return item;
}

function edit(turn: Shown): void {
  editing = { turn, item: editorOf(turn) };
  draw();
  list.querySelector("textarea")?.focus();
}
/** Makes the editor for a turn. Saving it removes the turns after it, because they answered the old text. */
function editorOf(turn: Shown): HTMLElement {
  const { role, content } = turn, field = make("textarea", { value: content, rows: 4, ariaLabel: "New text" });
  const end = () => {
    editing = undefined;
    draw();
  };
  const keep = () => {
    turns = [...turns.slice(0, turns.indexOf(turn)), { role, content: field.value }];
    end();
    if (role === "user") void answer(1);
  };
  const words = role === "user" ? "Send" : "Save";
  return make(
    "li",
    { className: `${role} edited` },
    make("h2", {}, NAMES[role]),
    field,
    make("div", { className: "tools" }, button(words, keep, { className: "primary" }), button("Cancel", end)),
  );
}
function redo(turn: Shown): void {
  turns = turns.slice(0, turns.indexOf(turn));
  void answer(1);
}

function rivalOf(content: string, i: number): HTMLElement {
  const other = rivals![1 - i], name = `Answer ${"AB"[i]}`;
  const take = button(`${name} is better`, () => decide(content, other), { disabled: running !== undefined });
  return make("article", {}, make("h2", {}, name), make("p", { className: "text" }, content), take);
}
function decide(chosen: string, rejected: string): void {
  rivals = undefined;
  const kept = chosen === rejected || prefer(asked, chosen, rejected);
  turns = [...turns, {
    role: "assistant",
    content: chosen,
    note: chosen === rejected ? "the two answers were equal" : "chosen of two",
  }];
  draw();
  draft.focus();
  if (!kept) fail("This browser does not store the choice; save the file before you leave the page");
}

/** Generates an answer, or two from which the user chooses. */
async function answer(count: 1 | 2): Promise<void> {
  const chosen = model();
  if (!chosen) return;
  const controller = running = new AbortController(), texts = Array.from({ length: count }, () => "");
  const began = performance.now(), body = { model: chosen.id, ...sampling(), seed: seed() };
  const shape = { ...count > 1 && { n: count }, stream: true, stream_options: { include_usage: true } };
  let note = "", stopped = "", left = "", failed: unknown;
  const show = () => {
    if (count === 1) turns = [...before, { role: "assistant", content: texts[0], note: note + stopped + left }];
    else rivals = [...texts];
    draw();
  };
  const before = turns;
  draw();
  try {
    const { stream, turns: sent } = await begun(
      before,
      length(),
      (turns, limit) =>
        events<Chunk>("/v1/chat/completions", {
          body: { ...body, messages: messages(turns), ...limit, ...shape },
          ...{ signal: controller.signal, shown: true },
        }),
    );
    asked = messages(sent);
    const unread = before.length - sent.length;
    if (unread > 0) left = `; the first ${unread} turns no longer fit`;
    for await (const { choices, usage } of stream) {
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? "";
        if (finish_reason === "length") stopped = ", cut off at the limit of tokens";
      }
      if (usage) {
        const seconds = (performance.now() - began) / 1000, { completion_tokens: tokens } = usage;
        note = `${tokens} tokens, ${(tokens / seconds).toFixed(0)} a second`;
      }
      show();
    }
  } catch (error) {
    failed = error;
    stopped = controller.signal.aborted ? "stopped" : "broken off";
  }
  if (running !== controller) return;
  running = undefined;
  if (texts.every((text) => text === "") && failed) {
    rivals = undefined;
    turns = before.slice(0, -1); // puts the message back into the draft
    draft.value = before.at(-1)!.content;
  } else show();
  fail(failed);
  draw();
  draft.focus();
}

function submit(count: 1 | 2): void {
  if (running) return running.abort();
  const content = draft.value.trim();
  if (content) {
    turns = [...turns, { role: "user", content }];
    draft.value = "";
  } else if (turns.at(-1)?.role === "assistant") turns = turns.slice(0, -1); // answers the last message again
  if (turns.at(-1)?.role === "user") void answer(count);
}

export const refreshChat = draw;

export function bindChat(): void {
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running || draft.value.trim() || turns.at(-1)?.role === "user") submit(1);
  });
  two.addEventListener("click", () => submit(2));
  draft.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!running) find<HTMLFormElement>("composer").requestSubmit();
  });
  find("chat").addEventListener("keydown", ({ key }) => {
    if (key === "Escape") running?.abort();
  });
  find("chat-new").addEventListener("click", () => {
    running?.abort();
    running = rivals = editing = undefined;
    turns = [];
    draw();
    draft.focus();
  });
  find("chat-export").addEventListener("click", () => {
    const whole = {
      model: model()?.id,
      created: new Date().toISOString(),
      sampling: sampling(),
      messages: messages(),
      turns,
    };
    download("chat.json", JSON.stringify(whole, null, 2) + "\n", "application/json");
  });
  draw();
}
