/** Helpers for browser tests: the page's server, and Chromium driven by playwright-core. */
import { importNpm } from "../../scripts/npm.ts";

/**
 * The part of playwright-core that the tests use. Its own types are not imported, because `deno check` would have to
 * download them.
 */
interface Browser {
  newContext(
    options?: {
      viewport?: { width: number; height: number };
      colorScheme?: "light" | "dark";
      serviceWorkers?: "allow" | "block";
    },
  ): Promise<Context>;
  close(): Promise<void>;
}
/** A browser context. Its pages share the origin private file system. */
interface Context {
  newPage(): Promise<Page>;
  /** Sets the limit in milliseconds for everything that a page waits for. */
  setDefaultTimeout(limit: number): void;
}
export interface Page {
  goto(url: string): Promise<unknown>;
  click(selector: string): Promise<void>;
  hover(selector: string): Promise<void>;
  check(selector: string): Promise<void>;
  fill(selector: string, value: string): Promise<void>;
  press(selector: string, key: string): Promise<void>;
  /** Sets one file, or the path of a folder. */
  setInputFiles(
    selector: string,
    file: { name: string; mimeType: string; buffer: Uint8Array } | string,
  ): Promise<void>;
  context(): Context;
  selectOption(selector: string, value: string): Promise<unknown>;
  textContent(selector: string): Promise<string>;
  isDisabled(selector: string): Promise<boolean>;
  isVisible(selector: string): Promise<boolean>;
  evaluate<Result, Argument = undefined>(
    work: (argument: Argument) => Result,
    argument?: Argument,
  ): Promise<Awaited<Result>>;
  /** Resolves when `condition` returns true. */
  waitForFunction<Argument>(
    condition: (argument: Argument) => unknown,
    argument?: Argument,
  ): Promise<unknown>;
  on(event: "pageerror", listener: (error: Error) => void): void;
  on(event: "console", listener: (message: { type(): string; text(): string }) => void): void;
  on(event: "request", listener: (request: { url(): string }) => void): void;
  screenshot(options: { path: string; fullPage?: boolean }): Promise<unknown>;
  setViewportSize(size: { width: number; height: number }): Promise<void>;
  /** Makes `respond` answer the requests for matching paths, instead of the server. */
  route(
    pattern: string,
    respond: (
      route: { fulfill(response: { status?: number; body: string; contentType?: string }): Promise<void> },
    ) => unknown,
  ): Promise<void>;
  unroute(pattern: string): Promise<void>;
  workers(): unknown[];
  close(): Promise<void>;
}

/** Another name of the page's server. Unlike localhost it is not a secure context, because there is no https. */
export const PLAIN_HOST = "playground.test";
const CHROMIUM = "/usr/bin/chromium", ARGS = ["--no-sandbox", "--enable-unsafe-webgpu"];
const hasChromium = await Deno.stat(CHROMIUM).then(() => true, () => false);
/** Whether tests are skipped because there is no Chromium. With REQUIRE_WEBGPU=1 they fail instead. */
export const ignore: boolean = !hasChromium && Deno.env.get("REQUIRE_WEBGPU") !== "1";

interface BrowserTest {
  readonly name: string;
  /** Flags for `deno task browser`. Default: none. */
  readonly flags?: readonly string[];
  /** Starts the page's server. Default: `deno task browser`. */
  readonly server?: () => Promise<AsyncDisposable & { readonly url: string }>;
  readonly colorScheme?: "light" | "dark";
}

/**
 * Registers a test of the page, in a new headless Chromium whose WebGPU computes on the processor. An uncaught error in
 * the page fails the test.
 */
export function browserTest(
  { name, flags = [], server: begin = () => serve(flags), colorScheme }: BrowserTest,
  body: (page: Page) => Promise<void>,
): void {
  Deno.test({
    name,
    ignore,
    // playwright-core does not close all of its timers and streams.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      await using server = await begin();
      const browser = await openBrowser(), errors: Error[] = [];
      try {
        const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme });
        context.setDefaultTimeout(120_000); // a busy machine trains slowly
        const page = await context.newPage();
        page.on("pageerror", (error) => errors.push(error));
        await page.goto(server.url);
        await body(page);
      } finally {
        await browser.close();
      }
      if (errors.length > 0) throw errors[0];
    },
  });
}

export async function openBrowser(): Promise<Browser> {
  const { chromium } = await importNpm("playwright-core");
  return await chromium.launch({
    executablePath: CHROMIUM,
    args: [...ARGS, `--host-resolver-rules=MAP ${PLAIN_HOST} 127.0.0.1`],
  });
}

/** Runs `deno task browser` on a free port. */
export async function serve(flags: readonly string[]): Promise<AsyncDisposable & { readonly url: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "browser", "--port=0", ...flags],
    cwd: new URL("../../", import.meta.url),
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", url: string | undefined;
  while (!url) {
    const { value, done } = await lines.read();
    if (done) throw new Error(`deno task browser ended with the output: ${text}`);
    url = /http:\S+/.exec(text += value)?.[0];
  }
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill();
      await lines.cancel();
      await child.status;
    },
  };
}
