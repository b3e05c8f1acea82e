/** The sampling sliders of *Write* and *Chat*. */
import type { Sampler } from "./distribution.ts";
import { find } from "./dom.ts";

const form = find<HTMLFormElement>("sampling");
const number = (name: string): number => Number(new FormData(form).get(name));

export const sampler = (): Sampler => ({
  ...{ temperature: number("temperature"), topP: number("topP") },
  ...{ topK: Math.max(0, Math.floor(number("topK"))), minP: number("minP") },
});
/** The sliders' values as fields of a request. */
export function sampling(): Record<string, number> {
  const { temperature, topP, topK, minP } = sampler();
  return {
    temperature,
    ...topP < 1 && { top_p: topP },
    ...topK > 0 && { top_k: topK },
    ...minP > 0 && { min_p: minP },
  };
}
/** Maximum number of tokens to generate. */
export const length = (): number => Math.max(1, Math.floor(number("length")) || 100);
/** The user's seed, or a new random one, which the page shows. */
export function seed(): number {
  const given = String(new FormData(form).get("seed")).trim();
  const seed = /^\d{1,15}$/.test(given) ? Number(given) : Math.floor(Math.random() * 2 ** 31);
  find("seed-used").textContent = given ? "" : `last: ${seed}`;
  return seed;
}

/** Adds the sliders' event handlers. @param changed called when a slider moves */
export function bindSampling(changed: () => void): void {
  const show = () => {
    for (const output of form.querySelectorAll("output")) output.value = String(number(String(output.htmlFor)));
  };
  form.addEventListener("input", () => {
    show();
    changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
