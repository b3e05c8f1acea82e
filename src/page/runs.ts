/**
 * The page's part *Runs*: shows fine-tuning jobs live, compares their losses, samples their checkpoints, and starts,
 * pauses and cancels jobs.
 */
import { Failure, json } from "./api.ts";
import { brief, button, find, make, whole } from "./dom.ts";
import { bindNewJob, listFiles } from "./new_job.ts";
import { act, type Checkpoint, type Job, listJobs, listRuns, Run } from "./run_data.ts";
import { COLOURS, drawPlot, saveCurves } from "./run_plot.ts";
import { length, sampling } from "./sampling.ts";
import { allModels, choose, fail, model, readModels } from "./state.ts";

/** Milliseconds between two updates. */
const EVERY = 2000;

let runs: Run[] = [];
let chosen: string | undefined;
/** Ids of runs whose curves are drawn in addition to the chosen run's. */
const compared = new Set<string>();
/** Samples of checkpoints, by their ids. */
const samples = new Map<string, string>();
let goTo: (part: string) => void = () => {};

const isLive = ({ job }: Run) => job !== undefined && ["validating_files", "queued", "running"].includes(job.status);
const drawn = (): Run[] => runs.filter(({ id }) => id === chosen || compared.has(id));
const STATES: Record<Job["status"], string> = {
  ...{ validating_files: "validating files", queued: "waiting", running: "running", paused: "paused" },
  ...{ succeeded: "done", failed: "failed", cancelled: "cancelled" },
};

let watching = false;
/** Updates *Runs* while it is visible. */
export async function watchRuns(): Promise<void> {
  if (watching) return;
  watching = true;
  for (let turn = 0; !find("runs").hidden; turn++) {
    try {
      await look(turn === 0);
      find("runs-closed").hidden = true;
    } catch (error) {
      if (close(error)) break;
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
  watching = false;
}

/** Shows why the server lists no jobs. @returns false if the error has another reason, which is shown as an error */
function close(error: unknown): boolean {
  const status = error instanceof Failure ? error.status : undefined;
  if (status !== 404 && status !== 401) {
    fail(error, "runs");
    return false;
  }
  find("runs-closed").hidden = false;
  find("runs-closed").textContent = status === 404
    ? "This server has no fine-tuning jobs. Start it with --jobs=FOLDER, and create a key with --new_key=NAME."
    : "Jobs need a key. Enter yours with the button at the top.";
  find("new-job-details").hidden = true;
  draw();
  return true;
}

async function look(isFirst: boolean): Promise<void> {
  const [jobs, folders] = await Promise.all([listJobs(), listRuns()]),
    before = new Map(runs.map((run) => [run.id, run]));
  const known = jobs.map((job) => {
    const run = before.get(job.id) ?? new Run(job.id, `${job.model}, ${job.id.slice(-6)}`, job);
    if (job.fine_tuned_model && !run.job?.fine_tuned_model) void readModels();
    run.job = job;
    return run;
  });
  const served = folders.map(({ id }) =>
    before.get(`run ${id}`) ?? Object.assign(new Run(`run ${id}`, id), { read: 0 })
  );
  runs = [...known, ...served, ...runs.filter(({ job, read }) => !job && read === undefined)];
  chosen ??= runs[0]?.id;
  await Promise.all(
    drawn().filter((run) => !run.job || isLive(run) || isFirst || run.events.length === 0 || run.id === chosen)
      .map((run) => run.refresh()),
  );
  find("new-job-details").hidden = false;
  if (isFirst) await listFiles();
  fail(undefined, "runs");
  draw();
}

function draw(): void {
  drawList();
  redrawPlot();
  drawDetails();
}

const redrawPlot = (): void => drawPlot(runs.length > 0, drawn());

function drawList(): void {
  const active = document.activeElement?.id;
  find("run-list").replaceChildren(...runs.map((run, i) => {
    const { id, name, job, step, steps } = run;
    const compare = make("input", { type: "checkbox", id: `compare-${i}`, checked: compared.has(id) || id === chosen });
    compare.disabled = id === chosen;
    compare.ariaLabel = `Also draw the curves of ${name}`;
    compare.onchange = () => {
      if (compare.checked) compared.add(id);
      else compared.delete(id);
      void run.refresh().then(draw, fail);
    };
    const pick = button(name, () => {
      compared.delete(id);
      chosen = id;
      void run.refresh().then(draw, fail);
    }, { id: `run-${i}`, className: "name", ariaPressed: String(id === chosen) });
    const state = job ? STATES[job.status] : run.read === undefined ? "from disk" : "run folder",
      part = job && isLive(run) && steps ? `, ${whole(100 * step / steps)} %` : "";
    const words = make("span", { className: `state ${job?.status ?? ""}` }, state + part);
    return make("li", { className: colourOf(run) }, compare, pick, words);
  }));
  if (active) document.getElementById(active)?.focus();
  find("run-none").hidden = runs.length > 0;
}
const colourOf = (run: Run): string => drawn().includes(run) ? `k${drawn().indexOf(run) % COLOURS}` : "";

/** Formats a duration in hours, minutes and seconds. */
function duration(seconds: number): string {
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.round(seconds % 3600 / 60)} min`;
  return seconds >= 60 ? `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`;
}

function drawDetails(): void {
  const run = runs.find(({ id }) => id === chosen), box = find("run-details");
  box.hidden = !run;
  if (!run) return;
  const { job, step, steps, pace } = run, last = (name: string) => run.curves.get(name)?.at(-1)?.[1];
  find("run-title").textContent = run.name;
  find("run-state").textContent = job?.error?.message ?? "";
  find("run-state").hidden = !job?.error;
  const figures: [string, string][] = [
    ["Step", steps ? `${whole(step)} of ${whole(steps)}` : whole(step)],
    ...([["Loss", "train_loss"], ["Held-out loss", "valid_loss"]] as const).map(([words, name]): [string, string] => [
      words,
      last(name)?.toFixed(4) ?? "–",
    ]),
    ["Learning rate", last("learning_rate") === undefined ? "–" : last("learning_rate")!.toExponential(2)],
    ["Tokens a second", last("tokens_per_second") === undefined ? "–" : brief(last("tokens_per_second")!)],
    ["Time left", job?.status === "running" && pace && steps ? `about ${duration((steps - step) / pace)}` : "–"],
  ];
  find("run-figures").replaceChildren(
    ...figures.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
  const verbs: [string, Parameters<typeof act>[1], boolean][] = [
    ["Pause", "pause", job?.status === "running" || job?.status === "queued"],
    ["Resume", "resume", job?.status === "paused"],
    ["Save now", "checkpoints", job?.status === "running"],
    ["Cancel", "cancel", job !== undefined && (isLive(run) || job.status === "paused")],
  ];
  const tuned = job?.fine_tuned_model;
  replaceButtons(find("run-actions"), [
    ...verbs.filter(([, , can]) => can).map(([words, verb]) => button(words, () => void order(run, words, verb))),
    ...tuned ? [button("Use the result", () => use(tuned), { className: "primary" })] : [],
    ...run.curves.size > 0 ? [button("Save as CSV", () => saveCurves(run))] : [],
  ]);
  drawCheckpoints(run);
  const log = find("run-events"), atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 20;
  const lines = run.events.map(({ created_at, message }) =>
    `${new Date(1000 * created_at).toLocaleTimeString()}  ${message}\n`
  ).join("");
  if (log.textContent !== lines) log.textContent = lines;
  if (atEnd) log.scrollTop = log.scrollHeight;
}
/** Replaces buttons only if their texts have changed, so that a focused button retains the focus. */
function replaceButtons(box: HTMLElement, buttons: readonly HTMLElement[]): void {
  const words = (all: Iterable<Element>) => [...all].map(({ textContent }) => textContent).join("\n");
  const owner = `${chosen}`;
  if (words(box.children) === words(buttons) && box.dataset.owner === owner) return;
  box.dataset.owner = owner;
  box.replaceChildren(...buttons);
}

function drawCheckpoints({ checkpoints }: Run): void {
  find("checkpoints-card").hidden = checkpoints.length === 0;
  const list = find("checkpoints"), active = document.activeElement?.id;
  list.replaceChildren(...checkpoints.map((checkpoint) => {
    const { id, step_number, metrics, fine_tuned_model_checkpoint: name } = checkpoint, text = samples.get(id);
    const loss = metrics.valid_loss ?? metrics.train_loss;
    const title = make("h3", {}, `Step ${whole(step_number)}${loss === undefined ? "" : `, loss ${loss.toFixed(3)}`}`);
    const tools = make(
      "div",
      { className: "tools" },
      button("Use this checkpoint", () => use(name), {
        id: `use-${id}`,
        ariaLabel: `Use the checkpoint of step ${step_number}`,
      }),
      button("Sample", () => void sample(checkpoint), {
        id: `sample-${id}`,
        ariaLabel: `Sample the checkpoint of step ${step_number}`,
      }),
    );
    return make("li", {}, title, ...text === undefined ? [] : [make("p", { className: "text" }, text)], tools);
  }));
  if (active) document.getElementById(active)?.focus();
}

/** Samples a checkpoint. All checkpoints get the same seed and beginning, so that differences show what was learned. */
async function sample({ id, fine_tuned_model_checkpoint: name }: Checkpoint): Promise<void> {
  const prompt = find<HTMLInputElement>("sample-prompt").value || "\n";
  const known = allModels().find((one) => one.id === name), most = known ? Math.floor(known.context_length / 2) : 64;
  const body = { model: name, prompt, max_tokens: Math.min(length(), most), ...sampling(), seed: 1 };
  try {
    const { choices: [{ text }] } = await json<{ choices: { text: string }[] }>("/v1/completions", {
      body,
      shown: true,
    });
    samples.set(id, prompt === "\n" ? text : prompt + text);
    fail(undefined);
  } catch (error) {
    fail(error);
  }
  draw();
}

async function use(id: string): Promise<void> {
  await readModels();
  choose(id);
  goTo(model()?.chat ? "chat" : "write");
}

async function order(run: Run, words: string, verb: Parameters<typeof act>[1]): Promise<void> {
  if (verb === "cancel" && !confirm(`Cancel ${run.name}? Its checkpoints stay.`)) return;
  try {
    run.job = await act(run.id, verb);
    say(`${words}: requested`);
    await look(false);
  } catch (error) {
    fail(error);
  }
}

function say(words: string): void {
  find("run-said").textContent = words;
  setTimeout(() => find("run-said").textContent = "", 5000);
}

async function openFiles(files: FileList | null): Promise<void> {
  for (const file of files ?? []) {
    try {
      const folder = file.webkitRelativePath.split("/").at(-2), name = folder ?? file.name;
      if (file.webkitRelativePath && file.name !== "metrics.jsonl") continue;
      const run = Run.parse(name, await file.text());
      runs = [...runs.filter(({ id }) => id !== run.id), run];
      if (chosen === undefined) chosen = run.id;
      else compared.add(run.id);
      fail(undefined);
    } catch (error) {
      fail(error);
    }
  }
  draw();
}

export function bindRuns(go: (part: string) => void): void {
  goTo = go;
  new ResizeObserver(redrawPlot).observe(find("losses"));
  find("plot-form").addEventListener("input", redrawPlot);
  bindNewJob(async ({ id }) => {
    chosen = id;
    await look(false);
    say("The job has started");
  });
  const open = find<HTMLInputElement>("metrics-files"), folder = find<HTMLInputElement>("metrics-folder");
  for (const input of [open, folder]) input.addEventListener("change", () => void openFiles(input.files));
}
