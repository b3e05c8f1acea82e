/**
 * Runs the tests, in each mode that needs a process of its own, and ends with the counts of all of them:
 *
 * - narrow: every test, with 128-bit WASM kernels;
 * - wide: the engine's and the golden tests again, with the 256-bit kernels that V8's flags turn on;
 * - WebGPU: the golden tests and those of WebGPU's own again, through Deno's wgpu and through Dawn, on adapters that compute on
 *   the processor. One that is not installed is skipped, or with REQUIRE_WEBGPU=1 fails;
 * - browser: the page in `examples/browser/`, in Chromium; skipped or failed likewise.
 *
 * `deno task test PATH…` runs only those files or folders.
 */
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import { DAWN } from "../src/device/dawn.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const root = new URL("../", import.meta.url);
// Reading: modules, fixtures. Writing: temporary folders. Running: deno itself, for what needs a process of its own.
const permissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()}`,
  "--allow-env=DENO_V8_FLAGS,NANOGPT_TEST_DEVICES,HOME,LOCALAPPDATA,NANOGPT_DEBUG,REQUIRE_WEBGPU,XDG_CACHE_HOME",
  "--allow-net=127.0.0.1,localhost",
  "--ignore=tests/browser",
];
// playwright-core looks at the whole environment, and asks for the home folder and the system's release.
const browserPermissions = [
  "--allow-read",
  "--allow-write",
  `--allow-run=${Deno.execPath()},/usr/bin/chromium`,
  "--allow-env",
  "--allow-sys=homedir,osRelease",
  "--allow-net=localhost", // our own look at the server
];

/** `deno test` on `paths`, its output passed through; types are `deno task check`'s business. */
async function deno(
  mode: string,
  flags: string,
  paths: string[],
  env: Record<string, string> = {},
  more: string[] = [],
): Promise<Counts> {
  const inBrowser = mode === "browser";
  paths = paths.filter((path) => path.includes("tests/browser") === inBrowser);
  if (paths.length === 0) return { passed: 0, failed: 0, skipped: 0 };
  console.log(`\n${mode}: DENO_V8_FLAGS=${flags} deno test ${paths.join(" ")}`);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--quiet",
      "--no-check",
      "--no-prompt",
      ...(inBrowser ? browserPermissions : permissions),
      ...more,
      ...paths,
    ],
    env: { ...env, DENO_V8_FLAGS: flags, NO_COLOR: "1" },
    cwd: root,
    stdout: "piped",
  }).spawn();
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    await Deno.stdout.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  const { success } = await child.status;
  const summary = text.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed(?:.*? \| (\d+) ignored)?/gm)
    .toArray().at(-1);
  const [passed, failed, skipped] = (summary ?? []).slice(1).map((count) => Number(count ?? 0));
  const counts = { passed: passed ?? 0, failed: failed ?? 0, skipped: skipped ?? 0 };
  // A process that ended badly without a failed test, or without any test, has failed all the same.
  if (counts.failed === 0 && (!success || counts.passed + counts.skipped === 0)) counts.failed = 1;
  return counts;
}

const paths = Deno.args;
const runs = [await deno("narrow", v8Flags(false), paths.length ? paths : ["tests"])];
if (wideAvailable()) {
  runs.push(await deno("wide", v8Flags(true), paths.length ? paths : ["tests/engine", "tests/golden"]));
} else {
  console.log(`\nwide: skipped, because its flags are not known for V8 ${Deno.version.v8} on ${Deno.build.arch}`);
  runs.push({ passed: 0, failed: 0, skipped: 1 });
}

/** Vulkan drivers without a GPU: Mesa's llvmpipe, and SwiftShader, which comes with Chromium. */
const llvmpipe = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
  swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";
const webgpu = [
  { mode: "WebGPU on llvmpipe", device: "webgpu:software", driver: llvmpipe },
  { mode: "WebGPU on SwiftShader", device: "webgpu:software", driver: swiftShader },
  // Native code needs the permission ffi. Dawn does not take llvmpipe.
  { mode: "WebGPU through Dawn on SwiftShader", device: "webgpu:dawn:software", driver: swiftShader, dawn: true },
];
const required = Deno.env.get("REQUIRE_WEBGPU") === "1";
const webgpuTests = ["wgsl", "shader_errors", "webgpu", "dawn", "devices", "matmul_plans", "capture", "profile"].map((
  name,
) => `tests/engine/${name}_test.ts`);
for (const { mode, device, driver, dawn = false } of webgpu) {
  const there = await Deno.stat(driver).then(() => true, () => false);
  const missing = !there ? driver : dawn && !await fetched(DAWN) ? DAWN : undefined;
  if (missing === undefined) {
    const runtime = { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" }; // the Vulkan loader warns without
    const env = { NANOGPT_TEST_DEVICES: device, VK_ICD_FILENAMES: driver, ...runtime };
    const benchmark = driver === llvmpipe ? ["tests/bench_gpu_test.ts"] : [];
    const files = paths.length ? paths : ["tests/golden", ...webgpuTests, ...benchmark];
    runs.push(await deno(mode, v8Flags(false), files, env, dawn ? ["--allow-ffi"] : []));
  } else {
    console.log(`\n${mode}: ${required ? "failed" : "skipped"}, because there is no ${missing}`);
    runs.push({ passed: 0, failed: required ? 1 : 0, skipped: required ? 0 : 1 });
  }
}

runs.push(await deno("browser", v8Flags(false), paths.length ? paths : ["tests/browser"]));

/** Whether Deno has a package, or can get it. */
async function fetched(specifier: string): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), { args: ["cache", "--quiet", specifier], cwd: root });
  return (await command.output()).success;
}

const sum = (key: keyof Counts) => runs.reduce((total, run) => total + run[key], 0);
const skipped = sum("skipped");
console.log(`\n${sum("passed")} passed, ${sum("failed")} failed${skipped ? `, ${skipped} skipped` : ""}`);
if (sum("failed") > 0) Deno.exit(1);
