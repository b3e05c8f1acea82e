/** Draws the curves of *Runs*, and saves them as a file. */
import { plotCurves, smoothed } from "./curves.ts";
import { download, find, make } from "./dom.ts";
import type { Run } from "./run_data.ts";

/** Number of colours for curves. */
export const COLOURS = 6;

/**
 * Draws the metric that the form selects.
 *
 * @param some whether there are any runs
 * @param all the runs to draw
 */
export function drawPlot(some: boolean, all: readonly Run[]): void {
  find("curves-card").hidden = !some;
  const box = find("losses"), { clientWidth: width, clientHeight: height } = box;
  if (width === 0) return;
  const form = new FormData(find<HTMLFormElement>("plot-form")), shown = String(form.get("measure") ?? "loss");
  const names = new Set(all.flatMap(({ curves }) => [...curves.keys()]));
  const select = find<HTMLSelectElement>("measure");
  // An evaluation's `val_NAME` is drawn together with the steps' `NAME`, so it is not in the list.
  const isBeside = (name: string) =>
    /^(train|val|valid)_loss$|^train_/.test(name) || names.has(name.replace(/^val_/, "")) && name.startsWith("val_");
  const wanted = ["loss", ...[...names].filter((name) => !isBeside(name))];
  if (wanted.join() !== [...select.options].map(({ value }) => value).join()) {
    select.replaceChildren(...wanted.map((value) => make("option", { value }, value.replaceAll("_", " "))));
    select.value = wanted.includes(shown) ? shown : "loss";
  }
  const measure = select.value, smooth = Number(form.get("smoothing"));
  const [own, heldOut] = measure === "loss" ? ["train_loss", "valid_loss"] : [measure, `val_${measure}`];
  const curves = all.flatMap(({ curves, name }, i) => {
    const colour = i % COLOURS, held = curves.get(heldOut);
    return [
      { name, points: smoothed(curves.get(own) ?? [], smooth), colour },
      ...held ? [{ name: `${name}, held out`, points: held, colour, dotted: true }] : [],
    ];
  });
  box.innerHTML = plotCurves(
    { curves, xLabel: "step", yLabel: measure.replaceAll("_", " "), logX: form.has("logX"), close: measure === "loss" },
    { width, height },
  );
}

/** Saves the curves as CSV, with a row for each step and a column for each metric. */
export function saveCurves({ name, curves }: Run): void {
  const names = [...curves.keys()],
    steps = new Set([...curves.values()].flatMap((points) => points.map(([step]) => step)));
  const values = new Map(names.map((name) => [name, new Map(curves.get(name)!)]));
  const lines = [...steps].sort((a, b) => a - b).map((step) =>
    [step, ...names.map((name) => values.get(name)!.get(step) ?? "")].join(",")
  );
  download(
    `${name.replace(/[^\w.-]+/g, "-")}.csv`,
    [["step", ...names].join(","), ...lines].join("\n") + "\n",
    "text/csv",
  );
}
