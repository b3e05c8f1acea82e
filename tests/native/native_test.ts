/** Compares the native tile with WebAssembly's, and tests systems on which it does not run. Needs --allow-ffi. */
import { assertEquals, assertMatch } from "@std/assert";
import { matmulBias, matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { launch } from "../../src/engine/launch.ts";
import { loadNative, type Native, whatIsMissing } from "../../src/native/load.ts";
import { causalSelfAttention } from "../../src/ops/causal_self_attention.ts";
import { Storage } from "../../src/engine/storage.ts";
import { sizeOf, Tensor } from "../../src/engine/tensor.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

const native = await loadNative(), there = native.tile !== undefined;
if (!there) console.log(`native: tests skipped (${native.why})`);
/** Number of products to compare; some thousands take a minute. */
const PRODUCTS = Number(Deno.env.get("NANOGPT_NATIVE_PRODUCTS") ?? 300);

const forms = { NN: matmulNN, NT: matmulNT, TN: matmulTN };
const bits = ({ buffer }: { readonly buffer: ArrayBufferLike }) => new Int32Array(buffer);
/**
 * A device closes the library that it has opened, but a device that a test leaves open closes it at the end of the
 * process.
 */
const options = { ignore: !there, sanitizeResources: false };

/** Normally distributed numbers, of which every product uses a part. */
const numbers = new Float32Array(6 * 700 * 700);
new RandomGenerator(5).normal(numbers, 0, 1);

Deno.test("native: random products have the WebAssembly tile's bits, and write nothing else", options, async () => {
  const generator = new RandomGenerator(6), one = (most: number) => 1 + generator.randint(most);
  // Mostly small sizes, to test edges. Some have more than one block of K, and some have a common operand that all
  // threads share.
  const size = () => [one(4), one(40), one(40), one(150), one(150), one(700)][generator.randint(6)];
  for (let i = 0; i < PRODUCTS;) {
    // Guarded storages are never reused, so devices fill up.
    using wasm = await CpuDevice.create({ threads: 1 });
    using machine = await CpuDevice.create({ threads: one(4), guards: true, native });
    for (const end = Math.min(i + 50, PRODUCTS); i < end; i++) {
      let [batch, M, N, K] = [generator.randint(4) ? 1 : one(6), size(), size(), size()];
      const form = (["NN", "NT", "TN"] as const)[generator.randint(3)];
      // A matrix of weights may be in bf16, or in panels, as f32 or q8_0.
      const weights = form === "TN" ? 1 : batch > 1 ? 2 : 4;
      const stored = (["f32", "bf16", "q8_0", "panels"] as const)[generator.randint(weights)];
      if (stored === "q8_0" && form === "NN") N = Math.ceil(N / 32) * 32;
      if (stored === "q8_0" && form === "NT") K = Math.ceil(K / 32) * 32;
      const base = ["nothing", "c", "bias"][generator.randint(form === "NT" ? 3 : 2)];
      const values = [batch * M * K, batch * K * N, base === "c" ? batch * M * N : N].map((count) => {
        const from = generator.randint(Math.max(1, numbers.length - count));
        return numbers.subarray(from, from + count);
      });
      const offset = generator.randint(20);
      const run = async (device: CpuDevice) => {
        using scope = device.scope();
        // Operands start anywhere in a block, as parameters do in the optimizer's.
        const place = (values: Float32Array, shape: number[], dtype: "f32" | "bf16" = "f32") => {
          const all = device.tensor(new Float32Array(values.length + offset), { dtype });
          const part = new Storage(all.storage.block, values.length, offset);
          device.write(part, values);
          return new Tensor(part, shape);
        };
        const a = place(values[0], form === "TN" ? [batch, K, M] : [batch, M, K]);
        const matrix = form === "NT" ? [N, K] : [K, N];
        const b = stored === "q8_0" || stored === "panels"
          ? device.tensor(values[1], matrix, stored === "q8_0" ? { dtype: stored } : { panels: true }).alias([
            1,
            ...matrix,
          ])
          : place(values[1], [batch, ...matrix], stored);
        const added = base === "nothing" ? undefined : place(values[2], base === "c" ? [batch, M, N] : [N]);
        const { c } = base === "bias"
          ? launch(matmulBias, { a, b, bias: added! })
          : launch(forms[form], { a, b, c: added });
        scope.keep(c);
        scope[Symbol.dispose]();
        return bits(await c.data().finally(() => c.dispose()));
      };
      const [actual, expected] = [await run(machine), await run(wasm)],
        at = actual.findIndex((n, i) => n !== expected[i]);
      const what = `product ${i}, ${form} ${stored} [${[
        batch,
        M,
        K,
        N,
      ]}] on ${base}, ${machine.threads} threads`;
      if (at >= 0) throw new Error(`${what}: element ${at} of ${actual.length} has other bits`);
    }
  }
});

Deno.test("native: attention has the WebAssembly tile's bits, and writes nothing else", options, async () => {
  // Machine code multiplies from 128 tokens on. Sizes around blocks of 24 queries and 256 keys, and panels of 14 and
  // 32.
  for (
    const [B, T, heads, width] of [[1, 128, 3, 25], [2, 130, 2, 64], [1, 257, 1, 32], [1, 300, 2, 7], [1, 530, 1, 256]]
  ) {
    const starts = Int32Array.from({ length: B * T }, (_, i) => Math.floor(i % T / 37) * 37),
      shape = [B, T, 3 * heads * width];
    for (const [p, documents] of [[0, false], [0.2, false], [0, true], [0.2, true]] as const) {
      const run = async (native?: Native) => {
        using device = await CpuDevice.create({ threads: native ? 3 : 1, guards: true, native });
        const qkv = device.tensor(numbers.subarray(0, sizeOf(shape)), shape, { requiresGrad: true });
        const dropout = { p, seed: 3, offset: 5, stream: 1 };
        const of = documents ? { starts: device.tensor(starts, [B, T], { dtype: "i32" }) } : {};
        const results: Int32Array[] = [];
        for (let times = 0; times < 2; times++) { // the second backward adds
          const y = causalSelfAttention(qkv, { heads, dropout, ...of });
          y.backward(device.tensor(numbers.subarray(7, 7 + y.size), y.shape));
          results.push(bits(await y.data()), bits(await qkv.grad!.data()));
        }
        return results;
      };
      const what = `B ${B}, T ${T}, ${heads} heads of ${width}, dropout ${p}, ${
        documents ? "documents" : "whole rows"
      }`;
      const [expected, actual] = [await run(), await run(native)];
      for (const [i, result] of actual.entries()) {
        assertEquals(result.findIndex((n, at) => n !== expected[i][at]), -1, `${what}: result ${i} has other bits`);
      }
    }
  }
});

Deno.test("native: what a processor or a system lacks is named", () => {
  const zen5 = [0x1c, 0xfffa3203, 0xf1bf07ab, 0xe7] as const;
  assertEquals(whatIsMissing(zen5), undefined);
  assertMatch(whatIsMissing([4, zen5[1], zen5[2], zen5[3]])!, /no AVX-512/); // leaf 7 does not exist
  assertMatch(whatIsMissing([zen5[0], zen5[1], zen5[2] & ~(1 << 16), zen5[3]])!, /no AVX-512/);
  assertMatch(whatIsMissing([zen5[0], zen5[1] & ~(1 << 27), zen5[2], zen5[3]])!, /the system has not turned/);
  assertMatch(whatIsMissing([zen5[0], zen5[1], zen5[2], 7])!, /the system has not turned/); // only AVX is on
});

/** The output of a script in a process of its own. */
async function run(args: string[], script = new URL("./life.ts", import.meta.url).pathname): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--allow-read", ...args.slice(0, 1), script, ...args.slice(1)],
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("native: devices can be opened, closed and terminated in the middle of their work", options, async () => {
  // Deno does not end the threads of a terminated worker: after hundreds of rounds a process has too many.
  for (let left = Number(Deno.env.get("NANOGPT_NATIVE_ROUNDS") ?? 5), rounds; left > 0; left -= rounds) {
    rounds = Math.min(left, 50);
    assertEquals(await run(["--allow-ffi", `${rounds}`]), `${rounds} rounds`);
  }
});

/** The beginning of a script, which replaces functions of libc. */
const libc = (other: string) =>
  `const open = Deno.dlopen;
  Deno.dlopen = (name, of) => {
    const { symbols } = open(name, of);
    return { symbols: { ...symbols, ${other} }, close() {} };
  };`;
/** What a script does before the machine code is loaded, and the expected reason for having no tile. */
const refusals: [before: string, why: RegExp][] = [
  ['Deno.permissions.revokeSync({ name: "ffi" });', /^native: off, it needs --allow-ffi, which lets code do anything$/],
  [
    'Object.defineProperty(Deno, "build", { value: { os: "darwin", arch: "aarch64" } });',
    /^native: off, it is for Linux on x86-64, and this is darwin on aarch64$/,
  ],
  [
    'Deno.dlopen = () => { throw new Error("Could not open library: libc.so.6"); };',
    /^native: off, Could not open library: libc.so.6$/,
  ],
  [
    libc("mmap: () => Deno.UnsafePointer.create(2n ** 64n - 1n)"),
    /^native: off, the system grants no memory for code$/,
  ],
  [libc("mprotect: () => -1"), /^native: off, the system forbids executable memory$/],
];
if (there) {
  const slow =
    "bsearch(...all) { const end = performance.now() + 20; while (performance.now() < end); symbols.bsearch(...all); }";
  refusals.push([
    libc(slow),
    /^native: off, its products run at 0\.\d\d times WebAssembly's rate \((wide|narrow) mode\) here$/,
  ]);
}

/** A script that prints why there is no tile, and the result of a device without it. */
const scriptOf = (before: string) => {
  const script = `${before}
      const { loadNative } = await import("${new URL("../../src/native/load.ts", import.meta.url).href}");
      const { createDevice } = await import("${new URL("../../src/device/create.ts", import.meta.url).href}");
      const native = await loadNative(), device = await createDevice("cpu", { threads: 2, native });
      console.log(native.why);
      console.log(device.description, ...await device.tensor([1, 2]).data());`;
  return `data:application/javascript,${encodeURIComponent(script)}`;
};

function assertWithout(printed: string, why: RegExp): void {
  const [line, after] = printed.split("\n");
  assertMatch(line, why);
  assertMatch(after, /^cpu \((wide|narrow)\), threads: 2 1 2$/);
}

Deno.test("native: if it cannot run, a line gives the reason, and a device computes without it", async () => {
  for (const [before, why] of refusals) assertWithout(await run(["--allow-ffi"], scriptOf(before)), why);
});

/** Runs a script on a system that forbids new executable memory; undefined if this machine cannot provide one. */
async function runForbidden(script: string): Promise<string | undefined> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return undefined;
  const forbid = new URL("./forbid.py", import.meta.url).pathname;
  const args = [forbid, Deno.execPath(), "run", "--no-prompt", "--no-check", "--allow-read", "--allow-ffi", script];
  const command = new Deno.Command("python3", { args, env: { NO_COLOR: "1" } });
  const { code, stdout, stderr } = await command.output().catch(() => ({ code: 75, stdout: NOTHING, stderr: NOTHING }));
  if (code === 75) return undefined;
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}
const NOTHING = new Uint8Array();
const forbidden = await runForbidden(scriptOf(""));
if (forbidden === undefined) {
  console.log("native: not tested on a system that forbids executable memory, which needs Linux's seccomp and python3");
}
Deno.test({
  name: "native: on a system that really forbids executable memory a device computes without it",
  ignore: forbidden === undefined,
  fn: () => assertWithout(forbidden!, /^native: off, the system forbids executable memory$/),
});
