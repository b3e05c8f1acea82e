/** What all parts share: the models that are served, the one that is chosen, and the place for errors. */
import { Failure, json, key, type Model, reasonOf } from "./api.ts";
import { find, make } from "./dom.ts";

const select = find<HTMLSelectElement>("model");
let models: readonly Model[] = [];
const listeners: (() => void)[] = [];

/** The chosen one; undefined while nothing is known. */
export const model = (): Model | undefined => models.find(({ id }) => id === select.value);
export const allModels = (): readonly Model[] => models;
/** Has a function run when another model is chosen, or the list has changed. */
export const onModel = (listener: () => void): void => void listeners.push(listener);
const tell = () => listeners.forEach((listener) => listener());

/** Chooses a model of the list. */
export function choose(id: string): void {
  select.value = id;
  tell();
}

/** Asks what is served. */
export async function readModels(): Promise<void> {
  try {
    const { data } = await json<{ data: Model[] }>("/v1/models"), chosen = select.value;
    models = data;
    select.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
    if (data.some(({ id }) => id === chosen)) select.value = chosen;
    fail(undefined);
  } catch (error) {
    fail(error);
  }
  tell();
}

let shownBy = "";
/**
 * Shows what went wrong, at the top; of what somebody stopped, nothing.
 *
 * @param error undefined where it went well: then what went wrong before is no longer shown
 * @param by whose error it is: what looks again and again takes away its own alone
 */
export function fail(error: unknown, by = "action"): void {
  const words = error === undefined ? undefined : reasonOf(error), place = find("error");
  if (words === undefined && by !== "action" && by !== shownBy) return;
  shownBy = by;
  place.hidden = words === undefined;
  place.textContent = words ?? "";
  if (error instanceof Failure && error.status === 401) openKey();
}

const dialog = find<HTMLDialogElement>("key-dialog"), field = find<HTMLInputElement>("key");
export function openKey(): void {
  field.value = key.value;
  if (!dialog.open) dialog.showModal();
}

/** @param keyed is called when another key is entered */
export function bindState(keyed: () => void): void {
  select.addEventListener("change", tell);
  find("key-button").addEventListener("click", openKey);
  find("key-form").addEventListener("submit", () => {
    key.value = field.value.trim();
    void readModels().then(keyed);
  });
}
