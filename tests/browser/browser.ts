/** What the browser test stands on: the page's server, and Chromium driven by playwright-core. */

/** The parts of playwright-core that the test uses; its own types would be fetched by `deno check`. */
export interface Page {
  goto(url: string): Promise<unknown>;
  evaluate<Argument, Result>(work: (argument: Argument) => Result, argument?: Argument): Promise<Awaited<Result>>;
  on(event: "pageerror", listener: (error: Error) => void): void;
}
