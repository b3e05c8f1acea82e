import { assertThrows } from "@std/assert";
import type { Device } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError, ShapeError } from "../../src/errors.ts";
import { cachedAttention } from "../../src/ops/cached_attention.ts";
import { causalSelfAttention } from "../../src/ops/causal_self_attention.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose } from "../testing.ts";
import { tolerances } from "../golden/tolerances.ts";
import { assertAgrees, normal, outputAndGradient } from "./agree.ts";

const sizes = [[1, 1, 1, 1], [2, 3, 2, 5], [2, 64, 4, 32], [1, 65, 3, 25], [1, 130, 2, 64], [1, 300, 1, 20], [
  1,
  70,
  1,
  256,
]];

Deno.test("causal_self_attention: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  for (const [B, T, heads, width] of sizes) {
    for (const p of [0, 0.3]) {
      await assertAgrees(
        `B ${B}, T ${T}, ${heads} heads of ${width}, dropout ${p}`,
        tolerances.attention,
        (device) =>
          outputAndGradient(
            device,
            [B, T, 3 * heads * width],
            (qkv) => causalSelfAttention(qkv, { heads, dropout: { p, seed: 1337, offset: 9, stream: 2 } }),
          ),
      );
    }
  }
});

/** The tokens of `qkv` one after another, or in pieces of so many, through a cache that begins as NaN. */
function decode(device: Device, qkv: Float32Array, [B, T, heads, width]: number[], pieces: number[], S: number) {
  const C = heads * width, i32 = { dtype: "i32" } as const, outputs: Tensor[] = [];
  const cache = device.tensor(new Float32Array(B * S * 2 * C).fill(NaN), [B, S, 2, heads, width]);
  for (let at = 0, i = 0; at < T; at += pieces[i++]) {
    const rows = Array.from(
      { length: B },
      (_, b) => [...qkv.subarray((b * T + at) * 3 * C, (b * T + at + pieces[i]) * 3 * C)],
    );
    const part = device.tensor(rows.flat(), [B, pieces[i], 3 * C]);
    outputs.push(cachedAttention(part, cache, { position: device.tensor([at], [1], i32), heads }));
  }
  return outputs;
}

Deno.test("cached_attention: token by token and in pieces, with garbage behind them, it is causal self-attention", async () => {
  const device = new ReferenceDevice();
  for (
    const [[B, T, heads, width], pieces, S] of [
      [[1, 5, 2, 3], [1, 1, 1, 1, 1], 5],
      [[2, 9, 1, 4], [4, 1, 3, 1], 12],
      [[3, 6, 2, 2], [6], 6],
    ] as const
  ) {
    const qkv = normal(B * T * 3 * heads * width), C = heads * width;
    const whole = causalSelfAttention(device.tensor(qkv, [B, T, 3 * C]), { heads }), expected = await whole.data();
    const outputs = decode(device, qkv, [B, T, heads, width], [...pieces], S);
    for (let b = 0; b < B; b++) {
      const parts = await Promise.all(
        outputs.map(async (y) => [...(await y.data()).subarray(b * y.size / B, (b + 1) * y.size / B)]),
      );
      assertClose(
        parts.flat(),
        expected.subarray(b * T * C, (b + 1) * T * C),
        { atol: 1e-14, rtol: 1e-14 },
        `sequence ${b}`,
      );
    }
  }
});

Deno.test("cached_attention: the CPU agrees with the reference at odd sizes, on any number of threads", async () => {
  for (
    const [[B, T, heads, width], pieces, S] of [
      [[1, 1, 1, 1], [1], 1],
      [[2, 7, 3, 5], [1, 1, 4, 1], 9],
      [[1, 70, 2, 32], [67, 1, 1, 1], 77],
      [[3, 41, 2, 43], [20, 20, 1], 64],
      [[1, 300, 3, 64], [299, 1], 300],
    ] as const
  ) {
    const qkv = normal(B * T * 3 * heads * width);
    await assertAgrees(
      `B ${B}, T ${pieces}, ${heads} heads of ${width}`,
      tolerances.attention,
      (device) => decode(device, qkv, [B, T, heads, width], [...pieces], S),
    );
  }
});

Deno.test("cached_attention: a position that the host cannot see is moved into the cache", async () => {
  for (const position of [-7, 1 << 30]) {
    await assertAgrees(`position ${position}`, { atol: 1e-6, rtol: 1e-6 }, (device) => {
      const cache = device.tensor(normal(2 * 4 * 2 * 6), [2, 4, 2, 2, 3]),
        qkv = device.tensor(normal(2 * 18), [2, 1, 18]);
      const unseen = device.tensor([position], [1], { dtype: "i32" });
      unseen.storage.block.bounds = undefined;
      return [cachedAttention(qkv, cache, { position: unseen, heads: 2 }), cache];
    });
  }
});

Deno.test("attention: what does not fit is refused", () => {
  const device = new ReferenceDevice(),
    zeros = (...shape: number[]) => device.tensor(Array(shape.reduce((a, b) => a * b)).fill(0), shape);
  for (
    const [shape, heads] of [[[1, 2, 9], 2], [[1, 2, 7], 1], [[2, 9], 1], [[1, 2, 6], 0], [[1, 1, 771], 1]] as const
  ) {
    assertThrows(
      () => causalSelfAttention(zeros(...shape), { heads }),
      ShapeError,
      `Cannot apply causalSelfAttention to [${shape}]`,
    );
  }
  for (const p of [-0.1, 1.1, NaN]) {
    assertThrows(
      () => causalSelfAttention(zeros(1, 2, 6), { heads: 1, dropout: { p, seed: 0, offset: 0, stream: 0 } }),
      ConfigError,
      `${p}`,
    );
  }
  const position = device.tensor([3], [1], { dtype: "i32" });
  assertThrows(
    () => cachedAttention(zeros(1, 2, 6), zeros(1, 4, 2, 1, 2), { position, heads: 1 }),
    ShapeError,
    "2 tokens at position 3 do not fit into a cache of 4",
  );
  assertThrows(
    () => cachedAttention(zeros(1, 1, 6), zeros(1, 4, 2, 2, 1), { position, heads: 1 }),
    ShapeError,
    "[1,4,2,2,1]: the cache is expected as [1,S,2,1,2]",
  );
  const learnt = device.tensor(Array(6).fill(0), [1, 1, 6], { requiresGrad: true });
  assertThrows(
    () => cachedAttention(learnt, zeros(1, 4, 2, 1, 2), { position, heads: 1 }).backward(zeros(1, 1, 2)),
    TypeError,
    "no derivative",
  );
});
