/** What all parts share: the served models, the chosen model, and the place for errors. */
import { Failure, json, key, type Model, reasonOf } from "./api.ts";
import { find, make, store, stored } from "./dom.ts";

/** Name of the chosen model in `sessionStorage`, so that a reloaded page goes on with it. */
const NAME = "nanogpt model";

const select = find<HTMLSelectElement>("model");
let models: readonly Model[] = [];
const listeners: (() => void)[] = [];

/** The chosen model; undefined until the list is read. */
export const model = (): Model | undefined => models.find(({ id }) => id === select.value);
export const allModels = (): readonly Model[] => models;
/** Calls a function whenever another model is chosen or the list changes. */
export const onModel = (listener: () => void): void => void listeners.push(listener);
const tell = () => listeners.forEach((listener) => listener());
function chosen(): void {
  store(sessionStorage, NAME, select.value);
  tell();
}

/** Chooses a model. */
export function choose(id: string): void {
  select.value = id;
  chosen();
}

/** Reads the list of models from the server. */
export async function readModels(): Promise<void> {
  try {
    const { data } = await json<{ data: Model[] }>("/v1/models");
    const last = select.value || stored<string>(sessionStorage, NAME);
    models = data;
    select.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
    if (data.some(({ id }) => id === last)) select.value = last!;
    fail(undefined);
  } catch (error) {
    fail(error);
  }
  tell();
}

let shownBy = "";
/**
 * Shows an error at the top of the page. What the user stopped is not an error.
 *
 * @param error undefined after a success: an earlier error is removed then
 * @param by the source of the error: a source that polls the server removes only its own errors
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

/** Adds event handlers. @param keyed called after the user has entered a key */
export function bindState(keyed: () => void): void {
  select.addEventListener("change", chosen);
  find("key-button").addEventListener("click", openKey);
  find("key-form").addEventListener("submit", () => {
    key.value = field.value.trim();
    void readModels().then(keyed);
  });
}
