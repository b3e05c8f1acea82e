/** Long work on a screen: lines, and on a terminal a bar below them that is drawn over itself. */

/** What the bar of a training shows. */
export interface ProgressState {
  done: number;
  total: number;
  loss: number;
  tokensPerSecond: number;
  /** Seconds. */
  left: number;
}

export class Progress {
  #bar = "";
  #drawnAt = -Infinity;

  readonly terminal: boolean;

  /** @param output where it is written */
  constructor(readonly output: Pick<typeof Deno.stdout, "isTerminal" | "writeSync"> = Deno.stdout) {
    this.terminal = output.isTerminal();
  }

  /** Prints a line; the bar moves below it. */
  line(text: string): void {
    this.#write(`${this.#erase()}${text}\n${this.#bar}`);
  }

  /** Draws the bar, at most twenty times a second; nothing where the output is no terminal. */
  status(text: (columns: number) => string): void {
    if (!this.terminal || performance.now() - this.#drawnAt < 50) return;
    const columns = Deno.consoleSize().columns - 1, erase = this.#erase();
    this.#drawnAt = performance.now();
    this.#bar = text(columns).slice(0, columns);
    this.#write(erase + this.#bar);
  }

  /** Takes the bar away. */
  end(): void {
    this.#write(this.#erase());
    this.#bar = "";
  }

  #erase(): string {
    return this.#bar && "\r\x1b[K";
  }

  #write(text: string): void {
    if (text) this.output.writeSync(new TextEncoder().encode(text));
  }
}

/** One line of at most `columns` characters; the bar takes what the numbers leave. */
export function bar({ done, total, loss, tokensPerSecond, left }: ProgressState, columns: number): string {
  const numbers = ` ${done}/${total}  loss ${loss.toFixed(4)}  ${rate(tokensPerSecond)}  ${duration(left)} left`;
  return share(done / Math.max(1, total), numbers, columns);
}

/** A bar that is filled so far, 0 to 1, and the text behind it. */
export function share(filled: number, text: string, columns: number): string {
  const width = Math.min(40, columns - text.length - 2);
  if (width < 5) return text.trimStart().slice(0, columns);
  const marks = Math.round(width * Math.min(1, filled));
  return `[${"#".repeat(marks)}${"-".repeat(width - marks)}]${text}`;
}

export function rate(tokensPerSecond: number): string {
  return tokensPerSecond < 1000
    ? `${tokensPerSecond.toFixed(0)} tokens/s`
    : `${(tokensPerSecond / 1000).toFixed(1)}k tokens/s`;
}

export function duration(seconds: number): string {
  const s = Math.round(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h > 0) return `${h}h${String(m % 60).padStart(2, "0")}m`;
  return m > 0 ? `${m}m${String(s % 60).padStart(2, "0")}s` : `${s}s`;
}
