import { assertEquals, assertThrows } from "@std/assert";
import { matmulBias, matmulNN, matmulNT, matmulTN } from "../../kernels/matmul/kernel.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ShapeError } from "../../src/errors.ts";
import { launch } from "../../src/engine/launch.ts";
import { linear } from "../../src/ops/linear.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { WasmFunction } from "../../src/wasm/assembler.ts";
import { type Columns, defineMultiply, ROWS } from "../../src/wasm/gemm.ts";
import { type Contiguous, definePack } from "../../src/wasm/packing.ts";
import { assertAgrees, normal } from "./agree.ts";

/** Bytes that `count` rows or columns take when they are packed. */
const packedBytes = (width: number, count: number, K: number): number => 4 * Math.ceil(count / width) * width * K;

/**
 * [batch, M, K, N]: sizes around the tile's and around 384, a block of K, and more rows than a thread packs at a time.
 */
const SIZES = [
  [1, 1, 1, 1],
  [1, 6, 4, 16],
  [1, 7, 5, 9],
  [3, 5, 3, 70],
  [2, 13, 131, 65],
  [1, 33, 384, 17],
  [1, 5, 385, 130],
  [2, 40, 769, 24],
  [1, 520, 3, 5],
  [1, 9, 33, 523],
  [1, 301, 400, 290],
  // The packed common operand is too large for a copy in every thread's scratch memory: first a, then b.
  [96, 6, 385, 33],
  [36, 20, 385, 13],
];
/** [batch, M, K, N] with few rows of a, for which b is read in place. */
const FEW_ROWS = [1, 2, 3, 4].flatMap((M) => [[1, M, 1, 1], [2, M, 33, 70], [1, M, 385, 523]]);

/**
 * Elements are normally distributed, so a sum of k products is about √k. Adding K products rounds K times, each time by
 * a random error of up to 6e-8 of the sum. The expected error is 2e-8 · K, and among 100,000 elements one is expected
 * to have 4.5 times that error.
 */
const limit = ([, , K]: number[]) => ({ atol: 1e-7 * K, rtol: 1e-6 });

function operands(device: Device, form: "NN" | "NT" | "TN", [batch, M, K, N]: number[]) {
  const [a, b] = [form === "TN" ? [batch, K, M] : [batch, M, K], form === "NT" ? [batch, N, K] : [batch, K, N]];
  return { a: device.tensor(normal(batch * M * K, 1), a), b: device.tensor(normal(batch * K * N, 2), b) };
}

for (const [form, kernel] of Object.entries({ NN: matmulNN, NT: matmulNT, TN: matmulTN })) {
  Deno.test(`matmul ${form}: the CPU agrees with the reference, on any number of threads`, async () => {
    for (const sizes of [...SIZES, ...FEW_ROWS]) {
      const [batch, M, , N] = sizes, of = form as "NN" | "NT" | "TN";
      await assertAgrees(`[${sizes}]`, limit(sizes), (device) => [launch(kernel, operands(device, of, sizes)).c]);
      await assertAgrees(`[${sizes}], added`, limit(sizes), (device) => {
        const c = device.tensor(normal(batch * M * N, 3), [batch, M, N]);
        return [launch(kernel, { ...operands(device, of, sizes), c }).c];
      });
    }
  });
}

Deno.test("matmul with bias: the CPU agrees with the reference, on any number of threads", async () => {
  for (const sizes of [...SIZES, ...FEW_ROWS]) {
    await assertAgrees(`[${sizes}]`, limit(sizes), (device) => {
      const bias = device.tensor(normal(sizes[3], 4), [sizes[3]]);
      return [launch(matmulBias, { ...operands(device, "NT", sizes), bias }).c];
    });
  }
});

Deno.test("matmul: a fresh result does not depend on the previous contents of its memory", async () => {
  const device = await CpuDevice.create({ threads: 2, guards: true });
  for (const M of [3, 40]) {
    const run = () => launch(matmulNT, operands(device, "NT", [1, M, 385, 50])).c;
    const before = run(), expected = await before.data();
    before.dispose();
    device.tensor(new Float32Array(M * 50).fill(NaN), [1, M, 50]).dispose(); // the next result will reuse its memory
    assertEquals(await run().data(), expected);
  }
});

Deno.test("matmul: a large b is read in place, not copied as a whole", async () => {
  const device = await CpuDevice.create({ threads: 2 }), sizes = [1, 12, 70, 50257];
  for (const form of ["NT", "NN"] as const) {
    const both = operands(device, form, sizes), before = device.memory().reserved;
    launch(form === "NT" ? matmulNT : matmulNN, both);
    const result = 4 * 12 * 50257, more = device.memory().reserved - before;
    if (more > 1.2 * result) throw new Error(`${form}: took ${more} bytes for a result of ${result}`);
  }
});

// Tests both tiles in one process, whichever is faster here: their results must have the same bits.
for (const [aSide, bSide] of [["k", "k"], ["k", "panel"], ["panel", "panel"], ["panel", "k"]] as const) {
  Deno.test(`multiply: tiles of 8 and of 16 columns give the same bits, a along ${aSide}, b along ${bSide}`, () => {
    const [narrow, wide] = [8, 16].map((width) => blocks(width as Columns, aSide, bSide));
    for (const [M, N, K] of [[1, 1, 1], [6, 16, 4], [7, 9, 5], [50, 65, 131], [33, 17, 384]]) {
      for (const base of ["nothing", "c", "bias"] as const) {
        const [one, other] = [narrow, wide].map((run) => run(M, N, K, base));
        assertEquals(new Int32Array(one.buffer), new Int32Array(other.buffer), `[${M},${K},${N}] on ${base}`);
      }
    }
  });
}

/**
 * Assembles a module that packs and multiplies. Returns a function that runs it, and that returns c with the 16
 * elements before and after it, which must stay unchanged.
 */
function blocks(width: Columns, aSide: Contiguous, bSide: Contiguous) {
  const pages = { initial: 64, maximum: 64, shared: false }, memory = new WebAssembly.Memory(pages);
  const f = WasmFunction.main("blocks"),
    MIB = 2 ** 20,
    [A, B, C, BIAS, AP, BP] = [1, 1.3, 1.6, 1.9, 2, 3].map((n) => n * MIB & -64);
  const [M, N, K, base, baseStride] = [0, 1, 2, 3, 4].map(() => f.parameter("i32"));
  const at = [A, B, C, AP, BP].map((address) => f.i32.constant(address));
  f.call(definePack(f, ROWS, aSide), at[0], f.i32.shl(aSide === "k" ? K : M, 2), M, K, at[3]);
  f.call(definePack(f, width, bSide), at[1], f.i32.shl(bSide === "k" ? K : N, 2), N, K, at[4]);
  f.call(defineMultiply(f, width), at[3], at[4], at[2], f.i32.shl(N, 2), M, N, K, base, baseStride);
  const module = new WebAssembly.Module(f.module(pages));
  const run = new WebAssembly.Instance(module, { env: { memory, scratch: 1024 } }).exports.run as (
    ...args: number[]
  ) => void;
  const floats = (address: number, length: number) => new Float32Array(memory.buffer, address, length);

  return (M: number, N: number, K: number, base: "nothing" | "c" | "bias"): Float32Array => {
    const ends = [AP + packedBytes(ROWS, M, K), BP + packedBytes(width, N, K)].map((address) =>
      floats(address, 16).fill(5)
    );
    floats(A, M * K).set(normal(M * K, 1));
    floats(B, K * N).set(normal(K * N, 2));
    floats(BIAS, N).set(normal(N, 3));
    const around = floats(C - 64, M * N + 32).fill(7);
    run(M, N, K, { nothing: 0, c: C, bias: BIAS }[base], base === "c" ? 4 * N : 0);
    for (const end of [...ends, around.subarray(0, 16), around.subarray(-16)]) {
      assertEquals(new Set(end).size, 1, "written outside");
    }
    return around.slice();
  };
}

Deno.test("matmul and linear: shapes that do not fit are rejected, with the op's name", () => {
  const device = new ReferenceDevice(),
    zeros = (...shape: number[]) => {
      return device.tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    };
  const refused = (body: () => unknown, message: string) => assertThrows(body, ShapeError, message);
  refused(() => matmul(zeros(4, 3), zeros(5, 2)), "Cannot apply matmul to [4,3] and [5,2]: inner sizes 3 and 5 differ");
  refused(() => matmul(zeros(2, 4, 3), zeros(3, 3, 2)), "[2,4,3] and [3,3,2]: the leading axes do not broadcast");
  refused(() => matmul(zeros(), zeros(1, 2)), "Cannot apply matmul to [] and [1,2]: a scalar is not a matrix");
  refused(
    () => linear(zeros(2, 4), zeros(5, 3)),
    "Cannot apply linear to [2,4] and weight [5,3]: inner sizes 4 and 3 differ",
  );
  refused(() => linear(zeros(2, 3), zeros(5, 3), zeros(3)), "the bias is [3], expected [5]");
});
