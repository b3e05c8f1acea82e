/**
 * The page's part *Write*: the model continues a text at the caret. The text's tokens are shaded by probability, and
 * the user can replace each of them.
 */
import { events, json } from "./api.ts";
import { drawBars } from "./bars.ts";
import type { Scored } from "./distribution.ts";
import { find, make } from "./dom.ts";
import { fitting } from "./fitting.ts";
import { type Lists, Manuscript, type Stretch, stretchesOf, topOf } from "./manuscript.ts";
import { length, sampler, sampling, seed } from "./sampling.ts";
import { fail, model } from "./state.ts";

interface Chunk {
  readonly choices: readonly { readonly text: string; readonly logprobs: Lists | null }[];
}

/** Number of alternatives for a token. */
const LIKELY = 20;
/** Milliseconds after the last key until the next token's distribution is requested. */
const PAUSE = 350;
/** The shades' upper bounds of the probability; tokens above the last have no shade. */
const SHADES = [0.01, 0.05, 0.2, 0.5];

const area = find<HTMLTextAreaElement>("manuscript"), shade = find("shade"), bars = find("bars");
const go = find<HTMLButtonElement>("go"), state = find("write-state");
const manuscript = new Manuscript();
let running: AbortController | undefined;
/** The distribution of the next token after a text, by a model. */
let next: { readonly text: string; readonly model: string; readonly top: readonly Scored[] } | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let gos = 0;
/** Redraws the text and its shades. */
function draw(caret?: number): void {
  const { text, stretches } = manuscript.draft, nodes: (Node | string)[] = [];
  if (area.value !== text) area.value = text;
  if (caret !== undefined) area.setSelectionRange(caret, caret);
  const here = running ? undefined : manuscript.at(area.selectionStart);
  let at = 0;
  for (const stretch of stretches) {
    if (stretch.start > at) nodes.push(text.slice(at, stretch.start));
    const level = SHADES.findIndex((most) => Math.exp(stretch.logprob) < most);
    const className = `${level < 0 ? "" : `p${level}`} ${stretch === here ? "here" : ""}`;
    nodes.push(make("span", { className }, text.slice(stretch.start, stretch.end)));
    at = stretch.end;
  }
  shade.replaceChildren(...nodes, text.slice(at), "\u200b"); // so that a final line end is displayed
  for (const [id, can] of [["undo", manuscript.canUndo], ["redo", manuscript.canRedo]] as const) {
    find<HTMLButtonElement>(id).disabled = !can || running !== undefined;
  }
  find<HTMLButtonElement>("score").disabled = find<HTMLButtonElement>("again").disabled = running !== undefined;
  find<HTMLButtonElement>("again").disabled ||= !stretches.some((stretch) => stretch.go === gos);
}

/** Shows alternatives for the token at the caret, or the next token. */
function drawAlternatives(): void {
  const { text } = manuscript.draft, caret = area.selectionStart, chosen = model(), here = manuscript.at(caret);
  const title = find("bars-title"), note = find("bars-note");
  if (!chosen || running) return;
  const known = here?.top ?? (next?.text === text.slice(0, caret) && next.model === chosen.id ? next.top : undefined);
  title.textContent = here ? "Instead of this token" : "Next token";
  const word = here && text.slice(here.start, here.end);
  note.textContent = here
    ? "Choose another token, and the model continues from there."
    : known
    ? "Choose a token to insert it at the cursor."
    : "Put the cursor into a text to see what may come next.";
  drawBars(
    bars,
    { top: known ?? [], vocabSize: chosen.vocab_size, ...word !== undefined && { chosen: word } },
    sampler(),
    take,
  );
  if (!here && !known) look();
}

/** After a pause, requests the distribution of the next token at the caret. */
function look(): void {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const chosen = model(), text = manuscript.draft.text.slice(0, area.selectionStart);
    if (!chosen || running || text === "" || find("write").hidden) return;
    if (next?.text === text && next.model === chosen.id) return;
    const asked = { model: chosen.id, max_tokens: 1, logprobs: LIKELY, temperature: 0 };
    try {
      const { choices: [{ logprobs }] } = await fitting(
        text,
        chosen,
        1,
        (prompt) => json<Chunk>("/v1/completions", { body: { ...asked, prompt } }),
      );
      next = { text, model: chosen.id, top: topOf(logprobs?.top_logprobs[0] ?? {}) };
      fail(undefined, "next");
    } catch (error) {
      next = { text, model: chosen.id, top: [] };
      fail(error, "next");
    }
    drawAlternatives();
  }, PAUSE);
}

function take(token: string): void {
  const caret = area.selectionStart, here = manuscript.at(caret);
  manuscript.step();
  if (here) manuscript.replace(here.start, manuscript.endOf(here), token);
  else manuscript.replace(caret, caret, token);
  draw(manuscript.draft.caret);
  if (here?.go !== undefined) void write();
  else drawAlternatives();
}

/** Lets the model continue the text at the caret. */
async function write(): Promise<void> {
  const chosen = model();
  if (!chosen) return;
  const controller = running = new AbortController(), { signal } = controller, asked = length(), first = seed();
  const from = area.selectionStart, began = performance.now(), own = ++gos;
  let at = from, count = 0;
  manuscript.step();
  setRunning(true);
  try {
    // A long text is generated in several requests, because the context is limited.
    for (let part = 0; count < asked; part++) {
      const room = Math.min(asked - count, Math.max(1, Math.floor(chosen.context_length / 2)));
      const before = manuscript.draft.text.slice(0, at), base = { model: chosen.id, max_tokens: room };
      const rest = { ...sampling(), seed: first + part, logprobs: LIKELY, stream: true };
      const stream = await fitting(before, chosen, room, async (prompt) => {
        const found = events<Chunk & { usage?: unknown }>("/v1/completions", {
          body: { ...base, prompt, ...rest },
          ...{ signal, shown: part === 0 },
        });
        return { found, first: await found.next() }; // a refused request throws at the first event
      });
      const lists: Lists[] = [];
      const counted = count;
      let text = "", finish: unknown;
      for (let { first: { value, done } } = stream; !done; { value, done } = await stream.found.next()) {
        const [choice] = (value as Chunk & { choices: { finish_reason: unknown }[] }).choices;
        if (choice.logprobs) lists.push(choice.logprobs);
        const long = text.length;
        text += choice.text;
        finish = choice.finish_reason ?? finish;
        count += choice.logprobs?.tokens.length ?? 0;
        manuscript.replace(at, at + long, text, stretchesOf(text, lists).map((stretch) => ({ ...stretch, go: own })));
        draw(manuscript.draft.caret);
        const seconds = (performance.now() - began) / 1000;
        state.textContent = `${count} tokens, ${(count / seconds).toFixed(0)} a second`;
      }
      at += text.length;
      if (finish !== "length" || count === counted) break;
    }
    fail(undefined);
  } catch (error) {
    fail(error);
  }
  if (running !== controller) return;
  running = undefined;
  setRunning(false);
  draw(manuscript.draft.caret);
  drawAlternatives();
}

function setRunning(now: boolean): void {
  go.textContent = now ? "Stop" : "Continue";
  area.readOnly = now;
  area.ariaBusy = String(now);
  draw();
}

/** Replaces the last continuation by another one, with another seed. */
function again(): void {
  const own = manuscript.draft.stretches.filter(({ go }) => go === gos);
  if (own.length === 0) return;
  manuscript.step();
  manuscript.replace(own[0].start, own.at(-1)!.end, "");
  draw(own[0].start);
  void write();
}

/** Scores the text, or as much of its end as fits into the context. */
async function score(): Promise<void> {
  const chosen = model(), { text } = manuscript.draft;
  if (!chosen || text === "") return;
  const asked = { model: chosen.id, max_tokens: 0, echo: true, logprobs: LIKELY };
  try {
    const stretches = await fitting(text, chosen, 0, async (prompt) => {
      const { choices: [choice] } = await json<Chunk>("/v1/completions", { body: { ...asked, prompt }, shown: true });
      const shift = text.length - prompt.length;
      return stretchesOf(prompt, [choice.logprobs!]).map((stretch): Stretch => ({
        ...{ ...stretch, start: stretch.start + shift, end: stretch.end + shift },
      }));
    });
    manuscript.step();
    const written = new Map(manuscript.draft.stretches.map(({ start, go }) => [start, go]));
    const judged = stretches.map((stretch) => {
      const go = written.get(stretch.start);
      return go === undefined ? stretch : { ...stretch, go };
    });
    manuscript.draft = { ...manuscript.draft, stretches: judged };
    fail(undefined);
    draw();
    drawAlternatives();
    const nats = -judged.reduce((sum, { logprob }) => sum + logprob, 0) / Math.max(1, judged.length);
    state.textContent = `${nats.toFixed(3)} nats per token, the loss of this text`;
  } catch (error) {
    fail(error);
  }
}

function move(step: "undo" | "redo"): void {
  if (running) return;
  manuscript[step]();
  draw(Math.min(manuscript.draft.caret, manuscript.draft.text.length));
  drawAlternatives();
  area.focus();
}

/** Redraws the alternatives, which depend on the sliders and on the model. */
export const refreshWrite = (): void => drawAlternatives();

export function bindWrite(): void {
  const goOrStop = () => running ? running.abort() : void write();
  go.addEventListener("click", goOrStop);
  find("again").addEventListener("click", again);
  find("undo").addEventListener("click", () => move("undo"));
  find("redo").addEventListener("click", () => move("redo"));
  find("score").addEventListener("click", () => void score());
  area.addEventListener("input", () => {
    manuscript.type(area.value, area.selectionStart);
    draw();
    drawAlternatives();
  });
  area.addEventListener("beforeinput", (event) => {
    if (event.inputType !== "historyUndo" && event.inputType !== "historyRedo") return;
    event.preventDefault();
    move(event.inputType === "historyUndo" ? "undo" : "redo");
  });
  document.addEventListener("selectionchange", () => {
    if (document.activeElement !== area || running) return;
    draw();
    drawAlternatives();
  });
  document.addEventListener("keydown", (event) => {
    if (find("write").hidden) return;
    const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    if (key === "escape" && running) running.abort();
    else if (command && key === "enter") goOrStop();
    else if (command && key === "z" && document.activeElement === area) move(event.shiftKey ? "redo" : "undo");
    else if (command && key === "y" && document.activeElement === area) move("redo");
    else return;
    event.preventDefault();
  });
  draw();
}
