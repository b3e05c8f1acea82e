/** The page: sends clicks to the engine as messages, and shows the engine's messages. */
import { droppedFiles, filesOf } from "./disk.ts";
import type { DiskFile, ExportFormat, FromEngine, StartRequest, ToEngine } from "./messages.ts";
import { findSaved, forgetSaved } from "./saved.ts";
import { adoptRequest, bindSettings, requestOf } from "./settings.ts";
import { find, View } from "./view.ts";

/** The page's state, on which depend the buttons' actions and whether settings can be changed. */
type State =
  | "idle"
  | "loading"
  | "loaded"
  | "starting"
  | "training"
  | "stopping"
  | "stopped"
  | "finished"
  | "failed";

/** Labels of the main button; in other states it is Start or Load. */
const LABELS: Partial<Record<State, string>> = {
  loaded: "Fine-tune",
  stopped: "Resume",
  training: "Stop",
  stopping: "Stop",
};
const FORMATS: readonly ExportFormat[] = ["hugging_face", "adapter", "run"];

const settings = find<HTMLFormElement>("settings"), writing = find<HTMLFormElement>("writing");
const main = find<HTMLButtonElement>("main"), reset = find<HTMLButtonElement>("reset");
const write = find<HTMLButtonElement>("write"), saved = find("saved");
const view = new View();
/** The message for a worker that did not load. Browsers do not give the reason. */
const NOT_LOADED =
  "The engine did not load. Either the server has stopped, or this browser is too old: it must support " +
  "“using” declarations, as Chrome and Edge 134, Firefox 141 and Safari 27.3 do.";
let engine: Worker | undefined;
let state: State;
/** Whether the engine is generating a text for the prompt. */
let isWriting = false;
/** Files of the folder that the user chose. */
let files: readonly DiskFile[] = [];
/** The run to start when the folder is loaded. */
let waiting: StartRequest | undefined;
/** The run's options for fine-tuning; undefined for a new model. */
let tuned: StartRequest["tuned"];

const send = (message: ToEngine) => engine?.postMessage(message);
const isTuning = () => new FormData(settings).get("origin") === "disk";

function enter(next: State, words: string): void {
  state = next;
  view.status(next, words);
  const isOpen = ["idle", "loaded", "finished", "failed"].includes(state); // Start begins a new run
  for (const fieldset of settings.querySelectorAll("fieldset")) fieldset.disabled = !isOpen;
  main.textContent = LABELS[state] ?? (isTuning() && (state === "idle" || state === "failed") ? "Load" : "Start");
  const isFocusLost = main.disabled && document.activeElement === document.body; // a disabled button loses the focus
  main.disabled = ["loading", "starting", "stopping"].includes(state);
  if (isFocusLost && !main.disabled) main.focus({ preventScroll: true });
  reset.disabled = state === "idle";
  write.disabled = !["loaded", "training", "stopping", "stopped", "finished"].includes(state);
  const isAtRest = state === "stopped" || state === "finished";
  for (const format of FORMATS) {
    const has = format === "hugging_face" || (format === "adapter") === (tuned !== undefined && tuned.rank > 0);
    find<HTMLButtonElement>(`export-${format}`).disabled = !(isAtRest && has) &&
      !(state === "loaded" && format === "hugging_face");
  }
  if (state !== "idle") saved.hidden = true;
}

/** Starts a new engine, after closing the old one. */
function open(last: number, entropy?: number): void {
  close();
  view.clear(last, entropy);
  engine = new Worker("worker.js", { type: "module" });
  engine.onmessage = ({ data }: MessageEvent<FromEngine>) => receive(data);
  engine.onerror = ({ message }) => fail(message || NOT_LOADED);
}

function load(): void {
  if (files.length === 0) return fail("No folder is chosen yet; choose the folder of a model on your disk.");
  const { device } = requestOf(new FormData(settings)); // read first, because disabled fields have no data
  tuned = undefined;
  open(1);
  enter("loading", "Loading");
  send({ kind: "load", device, files });
}

function start(): void {
  const request = requestOf(new FormData(settings));
  tuned = request.tuned;
  const last = request.training.maxIters!;
  if (!tuned) open(last, request.entropy);
  else if (state === "loaded") view.clear(last);
  else {
    waiting = request;
    return load();
  }
  enter("starting", "Starting");
  send(request);
}

function receive(message: FromEngine): void {
  view.show(message);
  if (message.kind === "loaded") {
    enter("loaded", `Loaded: ${message.name}`);
    if (waiting) start();
    waiting = undefined;
  } else if (message.kind === "started") enter("training", "Training");
  else if (message.kind === "stopped") enter("stopped", `Stopped after ${message.iter} updates`);
  else if (message.kind === "finished") enter("finished", `Done: ${message.iter} updates`);
  else if (message.kind === "written" && message.iter === undefined) setWriting(false);
  else if (message.kind === "exported") download(message.archive, message.name);
  else if (message.kind === "error") {
    if (message.during === "writing") setWriting(false);
    else if (message.during !== "export") fail(message.message);
  }
}

function download(archive: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(archive);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function fail(why: string): void {
  waiting = undefined;
  view.error(why);
  enter("failed", "Failed");
}

/** Makes the engine free its device and exit. */
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

/** Offers to resume the run that an earlier visit saved. */
async function offer(): Promise<void> {
  const found = await findSaved();
  if (state !== "idle") return;
  saved.hidden = !found;
  if (!found) return;
  const what = found.request.base ? `fine-tunes ${found.request.base.split("/").at(-1)}` : "trains a new model";
  find("saved-words").textContent = `This browser has a saved run that ${what}: ${found.iter} updates are saved.`;
  find("go-on").onclick = () => {
    tuned = found.request.tuned;
    adoptRequest(settings, found.request);
    open(found.request.training.maxIters!, found.request.entropy);
    enter("starting", "Opening");
    send({ kind: "restore" });
  };
}
find("forget").addEventListener("click", async () => {
  try {
    await forgetSaved();
    saved.hidden = true;
  } catch {
    find("saved-words").textContent = "The run cannot be deleted now: another tab has it open.";
  }
});

settings.addEventListener("submit", (event) => {
  event.preventDefault();
  if (state === "training") {
    send({ kind: "stop" });
    enter("stopping", "Stopping");
  } else if (state === "stopped") {
    send({ kind: "resume" });
    enter("training", "Training");
  } else if (isTuning() && (state === "idle" || state === "failed")) load();
  else start();
});
settings.addEventListener("change", ({ target }) => {
  const { name } = target as HTMLInputElement;
  if (name === "origin" && (state === "idle" || state === "loaded")) backToIdle();
});

function backToIdle(): void {
  close();
  view.clear(requestOf(new FormData(settings)).training.maxIters!);
  enter("idle", "Ready");
  void offer();
}
reset.addEventListener("click", () => {
  backToIdle();
  main.focus();
});

/** Loads a chosen or dropped folder. */
function choose(chosen: readonly DiskFile[]): void {
  if (settings.querySelector("fieldset")!.disabled || chosen.length === 0) return;
  files = chosen;
  const [{ path }] = files, name = path.includes("/") ? path.split("/")[0] : "files";
  find("chosen").textContent = `${name}: ${files.length} ${files.length === 1 ? "file" : "files"}`;
  find("chosen").hidden = false;
  const disk = settings.querySelector<HTMLInputElement>("[name=origin][value=disk]")!;
  if (!disk.checked) {
    disk.checked = true;
    disk.dispatchEvent(new Event("change", { bubbles: true }));
  }
  load();
}
const folder = find<HTMLInputElement>("folder");
folder.addEventListener("change", () => choose(filesOf(folder)));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer) choose(await droppedFiles(event.dataTransfer));
});

for (const format of FORMATS) {
  find(`export-${format}`).addEventListener("click", () => {
    find("export-error").hidden = true;
    send({ kind: "export", format });
  });
}

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
backToIdle();
