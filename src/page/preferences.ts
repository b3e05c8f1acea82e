/**
 * Choices between two answers, stored in this browser until they are deleted. They can be sent or saved as a file for
 * preference tuning.
 */
import { download, find, store, stored } from "./dom.ts";
import { upload } from "./run_data.ts";

export interface Turn {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}
interface Preference {
  readonly prompt: readonly Turn[];
  readonly chosen: readonly Turn[];
  readonly rejected: readonly Turn[];
}
const NAME = "nanogpt preferences";
let rows = stored<Preference[]>(localStorage, NAME) ?? [];

/** The choices as JSON lines, in which `prompt`, `chosen` and `rejected` are conversations. */
const lines = (): string => rows.map((row) => JSON.stringify(row) + "\n").join("");

/** Adds a choice. @returns whether the browser has stored it */
export function prefer(prompt: readonly Turn[], chosen: string, rejected: string): boolean {
  const answer = (content: string): Turn[] => [{ role: "assistant", content }];
  rows = [...rows, { prompt, chosen: answer(chosen), rejected: answer(rejected) }];
  return keep();
}
function keep(): boolean {
  show();
  return store(localStorage, NAME, rows);
}
function show(): void {
  const { length } = rows;
  find("preferences").hidden = length === 0;
  find("preference-count").textContent = `${length} ${length === 1 ? "choice" : "choices"} between two answers`;
}

/** Adds the buttons' event handlers. @param sent called with a file's id after the choices were uploaded */
export function bindPreferences(sent: (file: string) => void, fail: (error: unknown) => void): void {
  find("preference-save").addEventListener("click", () => download("preferences.jsonl", lines(), "application/jsonl"));
  find("preference-send").addEventListener(
    "click",
    () => upload(new File([lines()], "preferences.jsonl", { type: "application/jsonl" })).then(sent, fail),
  );
  find("preference-clear").addEventListener("click", () => {
    if (!confirm(`Delete ${rows.length} choices? Save them first if you still need them.`)) return;
    rows = [];
    keep();
  });
  show();
}
