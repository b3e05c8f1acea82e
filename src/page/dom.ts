/** Helpers for the page's elements. Texts become text nodes, so markup in them stays text. */

/** Returns the element with this id, which must exist. */
export const find = <E extends HTMLElement = HTMLElement>(id: string): E => document.getElementById(id) as E;

type Properties<E> = { readonly [K in keyof E]?: E[K] | undefined } & { readonly data?: Record<string, string> };

/** Creates an element with properties, `data-…` attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  { data = {}, ...properties }: Properties<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(name), properties);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

export const button = (words: string, onclick: () => void, more: Properties<HTMLButtonElement> = {}) =>
  make("button", { type: "button", onclick, ...more }, words);

/** Offers a text as a file. */
export function download(name: string, text: string, type: string): void {
  const href = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

export const whole = (value: number): string => Math.round(value).toLocaleString("en");
/** Formats a number with three significant digits, such as 0.0123 or 12.3. */
export const brief = (value: number): string =>
  Math.abs(value) >= 1000 ? whole(value) : `${Number(value.toPrecision(3))}`;

/** Reads a value from `localStorage` or `sessionStorage`; undefined if it is missing or damaged. */
export function stored<T>(storage: Storage, name: string): T | undefined {
  try {
    return JSON.parse(storage.getItem(name) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}
/** Stores a value. @returns false if the browser does not let pages store values */
export function store(storage: Storage, name: string, value: unknown): boolean {
  try {
    storage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
