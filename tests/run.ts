/**
 * Runs the tests in several modes, each in a process of its own, and prints the total counts at the end. Two processes
 * run at a time, because most tests use one core.
 *
 * - narrow: every test, with 128-bit WASM kernels;
 * - wide: the engine's tests and the golden tests again, with the 256-bit kernels that V8's flags turn on;
 * - native: the golden tests and tests of matrix products again, with the machine code of src/native/, if the processor
 *   supports it;
 * - WebGPU: the golden tests and WebGPU's own tests through Deno's wgpu on llvmpipe, most of them also through Dawn on
 *   SwiftShader, and every op and the model through wgpu on SwiftShader. These two drivers compute on the processor. A
 *   driver that is not installed is skipped, or fails with REQUIRE_WEBGPU=1;
 * - everywhere: the package in Node, and in Chromium through three bundlers; tests whose tools or registry are missing
 *   are skipped, or fail with REQUIRE_WEBGPU=1;
 * - browser: the page in `examples/browser/`, in Chromium; if Chromium is missing, skipped, or failed with
 *   REQUIRE_WEBGPU=1.
 *
 * `deno task test PATH…` runs only these files or folders, one mode after another.
 */
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import { specifierOf } from "../src/packages.ts";
import { NATIVE, whyNoNative } from "./native/available.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** What a failed run printed about its failures. */
  errors?: string;
}

const root = new URL("../", import.meta.url);
Deno.env.delete("INIT_CWD"); // set by the task that runs this script; tests run tasks in other folders
// Reading: modules and fixtures. Writing: temporary folders. Running: deno itself, for tests that start processes.
const permissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()},bash,sh,script`, // shells, and `script` for a terminal
  "--allow-env=DENO_V8_FLAGS,NANOGPT_GPT2,NANOGPT_NATIVE_PRODUCTS,NANOGPT_NATIVE_ROUNDS,NANOGPT_TEST_DEVICES,HOME,LOCALAPPDATA,NANOGPT_DEBUG,REQUIRE_WEBGPU,XDG_CACHE_HOME",
  "--allow-sys=cpus,osRelease", // printed by the benchmarks
  "--allow-net=127.0.0.1,localhost",
];
/** Folders that only their own mode runs. */
const SEPARATE = ["browser", "everywhere", "native", "long", "clients"];
// playwright-core reads the whole environment, the home folder and the system's release; before it uploads a file to a
// page, also the user's ids.
const browserPermissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()},/usr/bin/chromium`,
  "--allow-env",
  "--allow-sys=homedir,osRelease,uid,gid",
  "--allow-net=localhost,127.0.0.1", // requests to the server, by the tests and by the served page
];

const inTests = (names: readonly string[]) => names.map((name) => `tests/${name}`);

interface Run {
  readonly mode: string;
  readonly flags: string;
  /** The files and folders of tests/ to run. Paths on the command line replace them. */
  readonly tests: readonly string[];
  /** Folders to leave out, besides the folders of other modes. */
  readonly ignore?: readonly string[];
  readonly env?: Record<string, string>;
  /** Permissions in addition to `permissions`. */
  readonly more?: readonly string[];
}

const given = Deno.args.length > 0;
/**
 * Number of runs at a time. With one, output is printed at once; with two, when a run has ended, so that it does not
 * mix.
 */
const LANES = given ? 1 : Math.min(2, navigator.hardwareConcurrency);
const live = LANES === 1;

/** Reads a stream, and writes it to `shown` at once. */
async function read(stream: ReadableStream<Uint8Array>, shown?: typeof Deno.stdout): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    await shown?.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

/** Runs `deno test` on `tests`, without checking types, which `deno task check` does. */
async function deno({ mode, flags, tests, ignore = [], env, more = [] }: Run): Promise<Counts> {
  const own = SEPARATE.find((folder) => folder === mode), ours = own === "native" ? undefined : own;
  const paths = (given ? Deno.args : inTests(tests)).filter((path) => {
    const of = SEPARATE.find((folder) => path.includes(`tests/${folder}`));
    return of === own || of === ours;
  });
  if (paths.length === 0) return { passed: 0, failed: 0, skipped: 0 };
  const title = `\n${mode}: DENO_V8_FLAGS=${flags} deno test ${paths.join(" ")}`;
  const allowed = [...(ours === "browser" ? browserPermissions : ours ? ["--allow-all"] : permissions), ...more];
  const ignored = `--ignore=${[...inTests([...SEPARATE.filter((folder) => folder !== own), ...ignore])]}`;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--quiet",
      "--no-check",
      "--no-prompt",
      "--lock=npm.lock",
      "--frozen",
      ignored,
      ...allowed,
      ...paths,
    ],
    env: { ...env, DENO_V8_FLAGS: flags, NO_COLOR: "1" },
    cwd: root,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  console.log(live ? title : `${mode}: begins`);
  const [text, warnings] = await Promise.all([
    read(child.stdout, live ? Deno.stdout : undefined),
    read(child.stderr, Deno.stderr),
  ]);
  if (!live) console.log(`${title}\n${text}`);
  const { success } = await child.status;
  const summary = text.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed(?:.*? \| (\d+) ignored)?/gm)
    .toArray().at(-1);
  const [passed, failed, skipped] = (summary ?? []).slice(1).map((count) => Number(count ?? 0));
  const counts: Counts = { passed: passed ?? 0, failed: failed ?? 0, skipped: skipped ?? 0 };
  // A process that failed without a failed test, or that ran no test, counts as one failure.
  if (counts.failed === 0 && (!success || counts.passed + counts.skipped === 0)) counts.failed = 1;
  const errors = counts.failed === 0
    ? undefined
    : `${title}\n${/^ ERRORS $[^]*/m.exec(text)?.[0] ?? warnings.slice(-4000)}`;
  return { ...counts, errors };
}

const skip = (mode: string, why: string, failed = false): Counts => {
  const line = `\n${mode}: ${failed ? "failed" : "skipped"}, because ${why}`;
  console.log(line);
  return { passed: 0, failed: failed ? 1 : 0, skipped: failed ? 0 : 1, errors: failed ? line : undefined };
};

/** The runs of the narrow mode: three parts that take about equally long. */
function narrow(): (() => Promise<Counts>)[] {
  const run = (tests: readonly string[], ignore?: readonly string[]) => () =>
    deno({ mode: "narrow", flags: v8Flags(false), tests, ignore });
  const engine = ["engine", "golden"], commands = ["server", "cli", "examples"];
  return given ? [run([])] : [run(commands), run([""], [...engine, ...commands]), run(engine)];
}

async function wide(): Promise<Counts> {
  if (!wideAvailable()) return skip("wide", `its flags are not known for V8 ${Deno.version.v8} on ${Deno.build.arch}`);
  const tests = ["engine", "golden", "generate/rows_test.ts", "server/engine_test.ts"];
  return await deno({ mode: "wide", flags: v8Flags(true), tests });
}

const engine = (...names: string[]) => names.map((name) => `engine/${name}_test.ts`);
async function native(): Promise<Counts> {
  const noNative = await whyNoNative();
  if (noNative !== undefined) return skip("native", noNative);
  const more = ["--allow-ffi", "--allow-run=as,objcopy,python3", `--preload=${NATIVE}`];
  const tests = ["native", "golden", ...engine("matmul", "attention", "bf16", "panels", "capture", "lifetime")];
  return await deno({ mode: "native", flags: v8Flags(wideAvailable()), tests, more });
}

/** Vulkan drivers without a GPU: Mesa's llvmpipe, and SwiftShader, which comes with Chromium. */
const llvmpipe = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
  swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";
const everything = [
  "golden",
  ...engine("wgsl", "shader_errors", "webgpu", "dawn", "devices", "choose", "matmul_plans", "capture", "profile"),
];
const onLlvmpipe = {
  mode: "WebGPU on llvmpipe",
  driver: llvmpipe,
  // Memory estimates do not depend on the driver, so one driver is enough for "rehearsal".
  tests: [...everything, ...engine("rehearsal"), "generate/rows_test.ts", "bench/gpu_test.ts"],
  device: "webgpu:software",
};
// The runs on llvmpipe (same shader compiler) and through Dawn (same driver) test more; here each kernel once is enough.
const onSwiftShader = {
  mode: "WebGPU on SwiftShader",
  driver: swiftShader,
  tests: ["golden/ops_test.ts", "golden/model_test.ts", ...engine("devices")],
  device: "webgpu:software",
};
// Dawn's shaders take long to compile. wgsl_test compiles all of them, ops_test runs every op, and the golden tests that
// are left out only combine ops; paths on the command line run them here, too.
const onDawn = {
  mode: "WebGPU through Dawn on SwiftShader",
  driver: swiftShader, // Dawn refuses llvmpipe
  tests: [
    ...["ops", "modules", "model", "optimizer", "curve"].map((name) => `golden/${name}_test.ts`),
    ...everything.filter((tests) => tests !== "golden"),
  ],
  device: "webgpu:dawn:software",
};
const DAWN = specifierOf("webgpu");

/** Runs tests on an adapter, if its driver is installed. */
async function webgpu({ mode, driver, tests, device }: typeof onDawn): Promise<Counts> {
  const there = await Deno.stat(driver).then(() => true, () => false), dawn = device.includes("dawn");
  const missing = !there ? driver : dawn && !await fetched(DAWN) ? DAWN : undefined;
  if (missing !== undefined) return skip(mode, `there is no ${missing}`, Deno.env.get("REQUIRE_WEBGPU") === "1");
  const runtime = { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" }; // without it the Vulkan loader prints a warning
  const env = { NANOGPT_TEST_DEVICES: device, VK_ICD_FILENAMES: driver, ...runtime };
  const more = dawn ? ["--allow-ffi"] : []; // native code
  return await deno({ mode, flags: v8Flags(false), tests, env, more });
}

const separate = (folder: string) => () => deno({ mode: folder, flags: v8Flags(false), tests: [folder] });
const dawn = () => webgpu(onDawn); // the longest: SwiftShader compiles Dawn's shaders for minutes, on one core
const waiting = [
  ...(given ? [] : [dawn]),
  ...narrow(),
  wide,
  native,
  () => webgpu(onLlvmpipe),
  () => webgpu(onSwiftShader),
  ...(given ? [dawn] : []),
  separate("browser"),
  separate("everywhere"), // npm, Node, the bundlers and Chromium, with the permissions that they need
];
const runs: Counts[] = [];
async function lane(): Promise<void> {
  for (let next = waiting.shift(); next; next = waiting.shift()) runs.push(await next());
}
await Promise.all(Array.from({ length: LANES }, lane));

/** Whether Deno has a package in its cache or can download it. */
async function fetched(specifier: string): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), { args: ["cache", "--quiet", specifier], cwd: root });
  return (await command.output()).success;
}

for (const { errors } of runs) if (errors) console.log(errors); // again, so that they are found at the end of a long log
const sum = (key: "passed" | "failed" | "skipped") => runs.reduce((total, run) => total + run[key], 0);
const skipped = sum("skipped");
console.log(`\n${sum("passed")} passed, ${sum("failed")} failed${skipped ? `, ${skipped} skipped` : ""}`);
if (sum("failed") > 0) Deno.exit(1);
