/** Draws the most likely tokens as bars. Clicking a bar chooses its token. */
import { isText, type Sampler, type Scored, sharesOf, visible } from "./distribution.ts";
import { button, make } from "./dom.ts";

export interface Bars {
  /** The most likely tokens, in descending order. */
  readonly top: readonly Scored[];
  readonly vocabSize: number;
  /** The token at the cursor; undefined if there is none. */
  readonly chosen?: string;
}

const MOST = 10;
const percent = (share: number): string =>
  share === 0 ? "0 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** Draws the bars into a list. @param take called with a clicked token */
export function drawBars(
  list: HTMLElement,
  { top, vocabSize, chosen }: Bars,
  sampler: Sampler,
  take: (token: string) => void,
): void {
  const { shares, rest } = sharesOf(top, vocabSize, sampler);
  const rows = top.slice(0, MOST).map(({ token }, i) => {
    const share = shares[i], words = visible(token), now = token === chosen;
    const name = make("code", { textContent: words }), bar = make("span", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    const one = button("", () => take(token), {
      ...{ className: "token", disabled: now || !isText(token), ariaCurrent: String(now) },
      title: isText(token) ? "" : "This token is only a part of a character and cannot be chosen",
    });
    one.append(
      name,
      make("span", { className: "track" }, bar),
      " ",
      make("span", { className: "share" }, percent(share)),
    );
    return make("li", { className: `${now ? "now" : ""} ${share === 0 ? "out" : ""}` }, one);
  });
  const others = Math.max(0, vocabSize - Math.min(MOST, top.length));
  const more = rest + shares.slice(MOST).reduce((a, b) => a + b, 0);
  if (top.length > 0 && others > 0 && more > 0) {
    rows.push(
      make("li", { className: "others" }, `${others.toLocaleString("en")} other tokens: ${percent(more)} in total`),
    );
  }
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused >= 0) rows[focused]?.querySelector("button")?.focus();
}
