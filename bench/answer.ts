/**
 * What makes a script a side of a comparison: it says who it is in a line of JSON, and then answers each line of standard
 * input, `{"kind": "product" | "training" | "decoding", ...sizes, "seconds": 0.5}`, with one, `{"rate": …}` or `{"error": …}`.
 */

/** Works for some seconds at least, and tells how many pieces a second that made: products, steps, tokens. */
export type Run = (seconds: number) => Promise<number>;

/**
 * @param device who answers: name, version, and with what it computes
 * @param make makes what a request asks for; asked again for the same, the same goes on
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
  Deno.exit(); // some libraries' workers would keep the process
}

/** Measures `piece`, which does one piece of work to its end, by doing it until the time is over. */
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
