/**
 * Measures this library on the CPU, for bench/peers.ts and bench/rows.ts. The first argument is the number of threads.
 * The second, "native", turns on native products. peers.ts runs it with V8's flags for the wide mode (vectors of 256
 * bits) or the narrow mode (128 bits).
 */
import { createDevice } from "../mod.ts";
import { loadNative } from "../src/native/load.ts";
import { answer } from "./answer.ts";
import type { Request } from "./measures.ts";
import { type Subject, subject } from "./subjects.ts";

const native = Deno.args[1] === "native" ? await loadNative() : undefined;
if (native?.why) throw new Error(native.why);
const device = await createDevice("cpu", { threads: Number(Deno.args[0]), native });
let made: Subject | undefined;
await answer<Request>(`Deno ${Deno.version.deno}, ${Deno.env.get("DENO_V8_FLAGS")}`, (request) => {
  made?.[Symbol.dispose]();
  made = subject(device, request);
  return made.run;
});
