/**
 * Runs the tests, in each mode that needs a process of its own, and ends with the counts of all of them:
 *
 * - narrow: every test, with 128-bit WASM kernels;
 * - wide: the engine's and the golden tests again, with the 256-bit kernels that V8's flags turn on;
 * - native: the golden tests and those of products again, with the machine code of src/native/, where the processor runs it;
 * - WebGPU: the golden tests and those of WebGPU's own again, through Deno's wgpu and through Dawn, on adapters that compute on
 *   the processor. One that is not installed is skipped, or with REQUIRE_WEBGPU=1 fails;
 * - everywhere: the package in Node, and in Chromium through three bundlers; skipped or failed likewise, as without a registry;
 * - browser: the page in `examples/browser/`, in Chromium; skipped or failed likewise.
 *
 * `deno task test PATH…` runs only those files or folders.
 */
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import { specifierOf } from "../src/packages.ts";
import { NATIVE, whyNoNative } from "./native/available.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const root = new URL("../", import.meta.url);
Deno.env.delete("INIT_CWD"); // of the task that runs this: tests call tasks from other folders
// Reading: modules, fixtures. Writing: temporary folders. Running: deno itself, for what needs a process of its own.
const permissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()},bash,sh,script`, // and what stands between a command and a terminal
  "--allow-env=DENO_V8_FLAGS,NANOGPT_GPT2,NANOGPT_NATIVE_PRODUCTS,NANOGPT_NATIVE_ROUNDS,NANOGPT_TEST_DEVICES,HOME,LOCALAPPDATA,NANOGPT_DEBUG,REQUIRE_WEBGPU,XDG_CACHE_HOME",
  "--allow-sys=cpus,osRelease", // which the benchmarks name
  "--allow-net=127.0.0.1,localhost",
];
/** Folders that other modes leave out. */
const SEPARATE = ["browser", "everywhere", "native", "long", "clients"];
// playwright-core looks at the whole environment, asks for the home folder and the system's release, and, before it gives a page a file,
// for the user.
const browserPermissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()},/usr/bin/chromium`,
  "--allow-env",
  "--allow-sys=homedir,osRelease,uid,gid",
  "--allow-net=localhost,127.0.0.1", // our own look at the server, and the served page's
];

interface Run {
  readonly mode: string;
  readonly flags: string;
  readonly paths: readonly string[];
  readonly env?: Record<string, string>;
  /** Permissions besides those that all runs have. */
  readonly more?: readonly string[];
  /** Whether the output is passed through as it comes, or shown when all of it is there: of two runs at once one waits. */
  readonly live?: boolean;
}

/** `deno test` on `paths`; types are `deno task check`'s business. */
async function deno({ mode, flags, env, more = [], live = true, ...run }: Run): Promise<Counts> {
  const own = SEPARATE.find((folder) => folder === mode), ours = own === "native" ? undefined : own;
  const paths = run.paths.filter((path) => {
    const of = SEPARATE.find((folder) => path.includes(`tests/${folder}`));
    return of === own || of === ours;
  });
  if (paths.length === 0) return { passed: 0, failed: 0, skipped: 0 };
  const title = `\n${mode}: DENO_V8_FLAGS=${flags} deno test ${paths.join(" ")}`;
  const allowed = [...(ours === "browser" ? browserPermissions : ours ? ["--allow-all"] : permissions), ...more];
  const ignored = `--ignore=${SEPARATE.filter((folder) => folder !== own).map((folder) => `tests/${folder}`)}`;
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
  }).spawn();
  let text = "";
  const decoder = new TextDecoder();
  if (live) console.log(title);
  for await (const chunk of child.stdout) {
    if (live) await Deno.stdout.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  if (!live) console.log(`${title}\n${text}`);
  const { success } = await child.status;
  const summary = text.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed(?:.*? \| (\d+) ignored)?/gm)
    .toArray().at(-1);
  const [passed, failed, skipped] = (summary ?? []).slice(1).map((count) => Number(count ?? 0));
  const counts = { passed: passed ?? 0, failed: failed ?? 0, skipped: skipped ?? 0 };
  // A process that ended badly without a failed test, or without any test, has failed all the same.
  if (counts.failed === 0 && (!success || counts.passed + counts.skipped === 0)) counts.failed = 1;
  return counts;
}

const paths = Deno.args, given = paths.length > 0;
const runs = [await deno({ mode: "narrow", flags: v8Flags(false), paths: given ? paths : ["tests"] })];
if (wideAvailable()) {
  const all = ["tests/engine", "tests/golden", "tests/generate/rows_test.ts", "tests/server/engine_test.ts"];
  runs.push(await deno({ mode: "wide", flags: v8Flags(true), paths: given ? paths : all }));
} else {
  console.log(`\nwide: skipped, because its flags are not known for V8 ${Deno.version.v8} on ${Deno.build.arch}`);
  runs.push({ passed: 0, failed: 0, skipped: 1 });
}

const noNative = await whyNoNative();
if (noNative === undefined) {
  const more = ["--allow-ffi", "--allow-run=as,objcopy,python3", `--preload=${NATIVE}`];
  const tests = [
    "native",
    "golden",
    ...["matmul", "attention", "bf16", "panels", "capture", "lifetime"].map((name) => `engine/${name}_test.ts`),
  ];
  const own = given ? paths : tests.map((path) => `tests/${path}`);
  runs.push(await deno({ mode: "native", flags: v8Flags(wideAvailable()), paths: own, more }));
} else {
  console.log(`\nnative: skipped (${noNative})`);
  runs.push({ passed: 0, failed: 0, skipped: 1 });
}

/** Vulkan drivers without a GPU: Mesa's llvmpipe, and SwiftShader, which comes with Chromium. */
const llvmpipe = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
  swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";
const engine = (...names: string[]) => names.map((name) => `tests/engine/${name}_test.ts`);
const everything = engine(
  "wgsl",
  "shader_errors",
  "webgpu",
  "dawn",
  "devices",
  "choose",
  "matmul_plans",
  "capture",
  "profile",
);
const onWgpu = [
  {
    mode: "WebGPU on llvmpipe",
    driver: llvmpipe,
    // What memory is counted does not depend on who drives the adapter.
    tests: [...everything, ...engine("rehearsal"), "tests/generate/rows_test.ts", "tests/bench/gpu_test.ts"],
  },
  { mode: "WebGPU on SwiftShader", driver: swiftShader, tests: engine("devices") }, // the compiler is the same
].map((adapter) => ({ ...adapter, device: "webgpu:software", dawn: false }));
/** It takes no llvmpipe. */
const onDawn = {
  ...{ mode: "WebGPU through Dawn on SwiftShader", driver: swiftShader, tests: everything },
  ...{ device: "webgpu:dawn:software", dawn: true },
};
const DAWN = specifierOf("webgpu");
const required = Deno.env.get("REQUIRE_WEBGPU") === "1";

/** The golden tests and some of the engine's on an adapter, where it is installed. */
async function webgpu({ mode, driver, tests, device, dawn }: typeof onDawn, live = true): Promise<Counts> {
  const there = await Deno.stat(driver).then(() => true, () => false);
  const missing = !there ? driver : dawn && !await fetched(DAWN) ? DAWN : undefined;
  if (missing !== undefined) {
    console.log(`\n${mode}: ${required ? "failed" : "skipped"}, because there is no ${missing}`);
    return { passed: 0, failed: required ? 1 : 0, skipped: required ? 0 : 1 };
  }
  const runtime = { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" }; // the Vulkan loader warns without
  const env = { NANOGPT_TEST_DEVICES: device, VK_ICD_FILENAMES: driver, ...runtime };
  const more = dawn ? ["--allow-ffi"] : []; // native code
  return await deno({
    mode,
    flags: v8Flags(false),
    paths: given ? paths : ["tests/golden", ...tests],
    env,
    more,
    live,
  });
}
runs.push(await webgpu(onWgpu[0]));
// Dawn compiles on SwiftShader for minutes, on one processor; the other has the rest.
const dawn = webgpu(onDawn, false);
runs.push(await webgpu(onWgpu[1]));
runs.push(await deno({ mode: "browser", flags: v8Flags(false), paths: given ? paths : ["tests/browser"] }));
// npm, Node, the bundlers and Chromium, with what each of them asks for.
runs.push(await deno({ mode: "everywhere", flags: v8Flags(false), paths: given ? paths : ["tests/everywhere"] }));
runs.push(await dawn);

/** Whether Deno has a package, or can get it. */
async function fetched(specifier: string): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), { args: ["cache", "--quiet", specifier], cwd: root });
  return (await command.output()).success;
}

const sum = (key: keyof Counts) => runs.reduce((total, run) => total + run[key], 0);
const skipped = sum("skipped");
console.log(`\n${sum("passed")} passed, ${sum("failed")} failed${skipped ? `, ${skipped} skipped` : ""}`);
if (sum("failed") > 0) Deno.exit(1);
