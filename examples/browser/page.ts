/** The page: what is clicked becomes a message to the engine, and what the engine tells is shown. */
import type { FromEngine, ToEngine } from "./messages.ts";
import { bindSettings, requestOf, textOf } from "./settings.ts";
import { find, View } from "./view.ts";

/** What the buttons do, and whether the settings can be changed, depends on it. */
type State = "idle" | "starting" | "training" | "stopping" | "stopped" | "finished" | "failed";

const settings = find<HTMLFormElement>("settings"), writing = find<HTMLFormElement>("writing");
const main = find<HTMLButtonElement>("main"), reset = find<HTMLButtonElement>("reset");
const write = find<HTMLButtonElement>("write");
const view = new View();
/** Browsers do not say why a module is not there. */
const NOT_LOADED =
  "The engine does not load. Either the server has gone, or this browser is too old for it: it has to know " +
  "“using” declarations, as Chrome and Edge do from 134 on, and Firefox from 141.";
let engine: Worker | undefined;
let state: State;
/** Whether the engine is writing what the prompt asked for. */
let isWriting = false;

const send = (message: ToEngine) => engine?.postMessage(message);

function enter(next: State, words: string): void {
  state = next;
  view.status(next, words);
  const isOpen = state === "idle" || state === "finished" || state === "failed"; // Start would begin a new run
  for (const fieldset of settings.querySelectorAll("fieldset")) fieldset.disabled = !isOpen;
  main.textContent = state === "stopped" ? "Resume" : state === "training" || state === "stopping" ? "Stop" : "Start";
  main.disabled = state === "starting" || state === "stopping";
  reset.disabled = state === "idle";
  write.disabled = !["training", "stopping", "stopped", "finished"].includes(state);
}

function start(): void {
  close();
  const form = new FormData(settings), request = requestOf(form);
  view.clear(request.training.maxIters!, textOf(form).entropy);
  enter("starting", "Starting");
  engine = new Worker("worker.js", { type: "module" });
  engine.onmessage = ({ data }: MessageEvent<FromEngine>) => receive(data);
  engine.onerror = ({ message }) => fail(message || NOT_LOADED);
  send(request);
}

function receive(message: FromEngine): void {
  view.show(message);
  if (message.kind === "started") enter("training", "Training");
  else if (message.kind === "stopped") enter("stopped", `Stopped after ${message.iter} updates`);
  else if (message.kind === "finished") enter("finished", `Done: ${message.iter} updates`);
  else if (message.kind === "written" && message.iter === undefined) setWriting(false);
  else if (message.kind === "error") {
    if (message.during === "writing") setWriting(false);
    else fail(message.message);
  }
}

function fail(why: string): void {
  view.error(why);
  enter("failed", "It did not work");
}

/** Has the engine free its device and end. */
function close(): void {
  setWriting(false);
  if (engine) engine.onmessage = engine.onerror = null;
  send({ kind: "close" });
  engine = undefined;
}

function setWriting(now: boolean): void {
  isWriting = now;
  write.textContent = now ? "Stop writing" : "Write";
  view.writing(now);
}

settings.addEventListener("submit", (event) => {
  event.preventDefault();
  if (state === "training") {
    send({ kind: "stop" });
    enter("stopping", "Stopping");
  } else if (state === "stopped") {
    send({ kind: "resume" });
    enter("training", "Training");
  } else start();
});

reset.addEventListener("click", () => {
  close();
  view.clear(requestOf(new FormData(settings)).training.maxIters!);
  enter("idle", "Ready");
  main.focus();
});

writing.addEventListener("submit", (event) => {
  event.preventDefault();
  if (isWriting) return send({ kind: "hush" });
  const form = new FormData(writing), prompt = String(form.get("prompt")).replaceAll("\r\n", "\n");
  view.begin(prompt);
  setWriting(true);
  send({
    kind: "write",
    prompt,
    length: Number(form.get("length")),
    temperature: Number(form.get("temperature")),
    topK: Number(form.get("topK")) || undefined,
    seed: Math.floor(Math.random() * 2 ** 32),
  });
});

bindSettings(settings);
view.clear(requestOf(new FormData(settings)).training.maxIters!);
enter("idle", "Ready");
