/**
 * Compares every device with the reference device in cases that the golden fixtures do not cover, such as more than
 * 65,535 workgroups.
 */
import { gradientNorm } from "../../kernels/gradient_norm/kernel.ts";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { launch } from "../../src/engine/launch.ts";
import { add, causalSelfAttention, dropout, embedding, gelu, layerNorm, mul } from "../../src/ops/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose, devices, type Limit } from "../testing.ts";
import { tolerances } from "../golden/tolerances.ts";
import { normal } from "./agree.ts";

const EXACT = { atol: 0, rtol: 0 };
const reference = new ReferenceDevice(), all = (await devices()).filter(({ device }) => device.name !== "reference");

/** Defines a test for each device: its `results` must be within `limit` of the reference's. */
function agrees(what: string, limit: Limit, results: (device: Device) => Tensor[]): void {
  for (const { name, device } of all) {
    Deno.test(`${what} (${name})`, async () => {
      const expected = await Promise.all(results(reference).map((tensor) => tensor.data()));
      for (const [i, tensor] of results(device).entries()) {
        assertClose(await tensor.data(), expected[i], limit, `${what}, result ${i}`);
      }
    });
  }
}

/**
 * The output, and the inputs' gradients after two backward passes. The second pass tests that kernels add to a
 * gradient.
 */
function withGradients(inputs: Tensor[], op: () => Tensor): Tensor[] {
  const outputs = [1, 2].map(() => {
    const y = op();
    y.backward(y.device.tensor(normal(y.size, 9), y.shape));
    return y;
  });
  return [outputs[0], ...inputs.map(({ grad }) => grad!)];
}

const leaf = (device: Device, shape: number[], seed: number) =>
  device.tensor(normal(shape.reduce((a, b) => a * b, 1), seed), shape, { requiresGrad: true });

// The kernels have one workgroup per row (layer norm) or per id (embedding): here more than the 65,535 workgroups that
// one dimension of a dispatch allows. An element of the weights' gradient is the sum of 65,600 normal numbers in each
// of two passes, which is about 500.
const MANY = 65_600;
agrees(`layer norm of ${MANY} rows`, { atol: 3e-4, rtol: 2e-6 }, (device) => {
  const [x, weight, bias] = [[MANY, 9], [9], [9]].map((shape, i) => leaf(device, shape, i + 1));
  return withGradients([x, weight, bias], () => layerNorm(x, weight, bias));
});
for (const [n, V, C] of [[MANY, 33, 2], [300, 50_257, 5], [3, 2, 300]]) {
  agrees(`embedding of ${n} places in [${V},${C}]`, { atol: 2e-6 * Math.sqrt(n), rtol: 1e-6 }, (device) => {
    const values = Int32Array.from({ length: n }, (_, i) => (i * i + 3 * i) % 7919 % V),
      weight = leaf(device, [V, C], 1);
    const ids = device.tensor(values, [n], { dtype: "i32" });
    return withGradients([weight], () => embedding(ids, weight));
  });
}

for (const { name, device } of all) {
  // A workgroup owns 256 elements, so 17 million elements take more than 65,535 workgroups. Checks elements around that
  // limit and at the end.
  Deno.test(`elementwise ops on 17 million elements (${name})`, async () => {
    const n = 17e6 + 3, x = device.tensor(Float32Array.from({ length: n }, (_, i) => i % 3), [n]);
    const squares = mul(x, x), sums = add(squares, x), y = await sums.data();
    for (const tensor of [x, squares, sums]) tensor.dispose();
    const at = [0, 65_535 * 256 - 1, 65_535 * 256, 65_535 * 256 + 1, n - 2, n - 1];
    assertClose(at.map((i) => y[i]), at.map((i) => [0, 2, 6][i % 3]), EXACT, "x² + x");
    assertClose(
      y.subarray(-1000),
      Float32Array.from({ length: 1000 }, (_, i) => [0, 2, 6][(n - 1000 + i) % 3]),
      EXACT,
      "end",
    );
  });
}

// Widths that are read as single elements and as groups of four, with more than the 64 columns and 32 queries of a
// workgroup.
for (const [B, T, heads, width, p] of [[1, 33, 2, 70, 0], [1, 130, 1, 100, 0.3]]) {
  agrees(`attention, B ${B}, T ${T}, ${heads} heads of ${width}, dropout ${p}`, tolerances.attention, (device) => {
    const qkv = leaf(device, [B, T, 3 * heads * width], 1), offset = device.tensor([9], [1], { dtype: "i32" });
    const options = p ? { dropout: { p, seed: 1337, offset, stream: 2 } } : {};
    return withGradients([qkv], () => causalSelfAttention(qkv, { heads, ...options }));
  });
}

// Documents of one token, and of lengths around multiples of 32, the kernels' block of tokens.
for (
  const [heads, width, p, ...lengths] of [[2, 70, 0, 1, 1, 31], [1, 100, 0.3, 31, 33, 1, 32, 40, 63], [1, 5, 0, 70]]
) {
  const T = lengths.reduce((a, b) => a + b),
    starts = lengths.flatMap((length, i) => {
      const start = lengths.slice(0, i).reduce((a, b) => a + b, 0);
      return Array<number>(length).fill(start);
    });
  const what = `attention, ${heads} heads of ${width}, dropout ${p}, documents of ${lengths} and of ${T}`;
  agrees(what, tolerances.attention, (device) => {
    const qkv = leaf(device, [2, T, 3 * heads * width], 1), offset = device.tensor([9], [1], { dtype: "i32" });
    const dropout = { p, seed: 1337, offset, stream: 2 };
    const rows = device.tensor([...starts, ...Array<number>(T).fill(0)], [2, T], { dtype: "i32" });
    return withGradients([qkv], () => causalSelfAttention(qkv, { heads, dropout, starts: rows }));
  });
}

for (const approximate of ["none", "tanh"] as const) {
  // The kernels use polynomials of degree 10 and exponentials; this also tests far outside the range in which they were
  // fitted.
  agrees(`gelu, ${approximate}, near 0 and far from it`, { atol: 1e-6, rtol: 1e-6 }, (device) => {
    const far = [0, 1e-30, 1e-3, 6, 9.8, 9.9, 10, 12.8, 12.9, 13, 50, 1e4, 1e10].flatMap((x) => [x, -x]);
    const x = device.tensor(far, [far.length], { requiresGrad: true });
    return withGradients([x], () => gelu(x, { approximate }));
  });
}

for (const n of [1, 3, 4097, 100_003]) {
  for (const [seed, stream, offset] of [[1337, 3, 7], [2 ** 32 - 1, 2 ** 31, 2 ** 32 - 7]]) {
    agrees(`dropout of ${n} elements, seed ${seed}`, EXACT, (device) => {
      const ones = device.tensor(new Float32Array(n).fill(1), [n]),
        at = device.tensor([offset | 0], [1], { dtype: "i32" });
      return [dropout(ones, { p: 0.5, seed, stream, offset: at })]; // elements are 0 or 2, which are exact
    });
  }
}

for (const n of [1, 255, 4097, 1_000_003]) {
  for (const scale of [1e-6, 1, 1e6]) {
    // The square root halves the relative error of the sum. So 3e-7 allows for an error of 6e-7 in the sum, ten
    // roundings.
    agrees(`norm of ${n} gradients of size ${scale}`, { atol: 0, rtol: 3e-7 }, (device) => {
      const gradient = device.tensor(normal(n).map((g) => g * scale), [n]);
      return [launch(gradientNorm, { gradient }).norm];
    });
  }
}
