/**
 * The program of one side of a comparison: it measures one library when asked by peer.ts. It prints a line of JSON with
 * its name. Then it answers each line of standard input, `{"kind": "product" | "training" | "decoding", ...sizes,
 * "seconds": 0.5}`, with a line `{"rate": …}` or `{"error": …}`.
 */

/**
 * Works for at least the given number of seconds, and returns the rate in pieces of work (products, steps or tokens) a
 * second.
 */
export type Run = (seconds: number) => Promise<number>;

/**
 * Answers requests until standard input ends.
 *
 * @param device a description of the library: its name, its version, and what it computes with
 * @param make prepares the work of a request; if the next request asks for equal work, it is not called again
 */
export async function answer<R>(device: string, make: (request: R) => Run | Promise<Run>): Promise<never> {
  const say = (line: object) => Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(line) + "\n"));
  say({ device });
  let made: string | undefined, run!: Run, text = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (text + chunk).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const { seconds, ...request } = JSON.parse(line), key = JSON.stringify(request);
      try {
        if (key !== made) run = await make(request);
        made = key;
        say({ rate: await run(seconds) });
      } catch (error) {
        say({ error: (error as Error).message.split("\n")[0] });
      }
    }
  }
  Deno.exit(); // the workers of some libraries would keep the process alive
}

/** Repeats `piece`, which does one piece of work, until the time is over. */
export function repeated(piece: () => unknown): Run {
  return async (seconds) => {
    const begin = performance.now();
    for (let count = 1;; count++) {
      await piece();
      const passed = (performance.now() - begin) / 1000;
      if (passed >= seconds) return count / passed;
    }
  };
}
