import { assert, assertEquals, assertThrows } from "@std/assert";
import { attentionCopy } from "../../kernels/attention/cached.ts";
import type { Device } from "../../src/engine/device.ts";
import { launch } from "../../src/engine/launch.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { ConfigError, ShapeError } from "../../src/errors.ts";
import { bf16ToF32, f32ToBf16 } from "../../src/half.ts";
import { cachedAttention } from "../../src/ops/cached_attention.ts";
import { causalSelfAttention } from "../../src/ops/causal_self_attention.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, openDevice } from "../testing.ts";
import { REFERENCE, tolerances } from "../golden/tolerances.ts";
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

/**
 * The operand `starts`, (rows, T), for rows that hold documents of the given lengths: for each token, the place in the
 * row at which its document begins.
 */
function startsOf(device: Device, rows: readonly (readonly number[])[]): Tensor {
  const starts = rows.map((lengths) => {
    let at = 0;
    return lengths.flatMap((length) => Array<number>(length).fill((at += length) - length));
  });
  return device.tensor(starts.flat(), [rows.length, starts[0].length], { dtype: "i32" });
}

/** The lengths of documents in each row, the number of heads, and their width. All rows have the same total length. */
const packings: readonly [number[][], number, number][] = [
  [[[1, 1, 1]], 1, 1],
  [[[3, 6, 1], [10], [5, 5]], 2, 5],
  [[[30, 1, 33], [64], [17, 24, 23]], 4, 32],
  [[[61, 4], [24, 41]], 3, 25],
  [[[256, 44], [255, 45], [257, 43], [290, 10]], 1, 20], // around the ends of blocks of keys and of queries
  [[[5, 300, 2, 250, 20, 23]], 2, 24],
  [[Array(75).fill(8)], 1, 70],
];

Deno.test("causal_self_attention: with documents in a row the CPU agrees with the reference, on any number of threads", async () => {
  for (const [rows, heads, width] of packings) {
    for (const p of [0, 0.3]) {
      const shape = [rows.length, rows[0].reduce((a, b) => a + b), 3 * heads * width];
      await assertAgrees(
        `documents of ${rows.join("; ")}, ${heads} heads of ${width}, dropout ${p}`,
        tolerances.attention,
        (device) => {
          const options = { heads, dropout: { p, seed: 1337, offset: 9, stream: 2 }, starts: startsOf(device, rows) };
          return outputAndGradient(device, shape, (qkv) => causalSelfAttention(qkv, options));
        },
      );
    }
  }
});

Deno.test("causal_self_attention: documents in a row give the results of separate rows, the same bits in short rows' y and dq", async () => {
  for (const name of ["reference", "cpu"]) {
    const device = await openDevice(name);
    for (const [rows, heads, width] of packings) {
      const T = rows[0].reduce((a, b) => a + b), C = heads * width, shape = [rows.length, T, 3 * C];
      const values = normal(rows.length * T * 3 * C), upstream = normal(rows.length * T * C, 2);
      /** Returns y, and the three parts of qkv's gradient: dq, dk and dv. */
      const run = async (shape: number[], from: number, starts?: Tensor) => {
        const size = shape.reduce((a, b) => a * b), dout = upstream.subarray(from / 3, (from + size) / 3);
        const qkv = device.tensor(values.subarray(from, from + size), shape, { requiresGrad: true });
        const y = causalSelfAttention(qkv, { heads, starts });
        y.backward(device.tensor(dout, y.shape));
        const gradient = await qkv.grad!.data();
        const part = (n: number) => gradient.filter((_, i) => Math.floor(i % (3 * C) / C) === n);
        return [await y.data(), part(0), part(1), part(2)];
      };
      const packed = await run(shape, 0, startsOf(device, rows));
      let at = 0;
      for (const length of rows.flat()) {
        const apart = await run([1, length, 3 * C], at * 3 * C);
        for (const [i, what] of ["y", "dq", "dk", "dv"].entries()) {
          const own = packed[i].slice(at * C, (at + length) * C),
            label = `${name}, ${rows.join("; ")}: ${what} from ${at}`;
          const limit = name === "reference" ? REFERENCE : tolerances.attention;
          if (i < 2 && T <= 256) assertEquals(own.map((x) => x + 0), apart[i].map((x) => x + 0), label);
          else assertClose(own, apart[i], limit, label);
        }
        at += length;
      }
    }
    device.close();
  }
});

Deno.test("causal_self_attention: a start that was computed on the device is clamped into its row", async () => {
  const unseen = (device: Device, starts: number[]) => {
    const tensor = device.tensor(starts, [1, starts.length], { dtype: "i32" });
    tensor.storage.block.bounds = undefined;
    return tensor;
  };
  for (const starts of [[-1 << 31, -5, 0, 1, 9], [7, 7, 7, 1 << 30, 2 ** 31 - 1]]) {
    const moved = starts.map((start, t) => Math.min(Math.max(start, 0), t));
    const results = async (device: Device, starts: number[]) => {
      const [y, gradient] = outputAndGradient(
        device,
        [1, 5, 18],
        (qkv) => causalSelfAttention(qkv, { heads: 2, starts: unseen(device, starts) }),
      );
      return [[...await y.data()], [...await gradient.data()]];
    };
    for (const name of ["reference", "cpu"]) {
      const device = await openDevice(name, { guards: true });
      assertEquals(await results(device, starts), await results(device, moved), `${name}: ${starts}`);
      device.close();
    }
  }
});

/**
 * Runs the tokens of `qkv` through a cache that holds NaN at first, piece by piece. `pieces` are the numbers of tokens.
 */
function decode(device: Device, qkv: Float32Array, [B, T, heads, width]: number[], pieces: number[], S: number) {
  const C = heads * width, i32 = { dtype: "i32" } as const, outputs: Tensor[] = [];
  const cache = device.tensor(new Float32Array(B * S * 2 * C).fill(NaN), [B, heads, S, 2, width]);
  for (let at = 0, i = 0; at < T; at += pieces[i++]) {
    const rows = Array.from(
      { length: B },
      (_, b) => [...qkv.subarray((b * T + at) * 3 * C, (b * T + at + pieces[i]) * 3 * C)],
    );
    const part = device.tensor(rows.flat(), [B, pieces[i], 3 * C]), N = B * pieces[i];
    const slot = device.tensor(Array.from({ length: N }, (_, n) => Math.floor(n / pieces[i])), [N], i32);
    const position = device.tensor(Array.from({ length: N }, (_, n) => at + n % pieces[i]), [N], i32);
    outputs.push(cachedAttention(part, cache, { slot, position }));
  }
  return outputs;
}

Deno.test("cached_attention: token by token or in pieces, with garbage in later places, it equals causal self-attention", async () => {
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

Deno.test("cached_attention: a bf16 cache rounds what is written to it as the host does", async () => {
  // Bits of f32: ties that round down and up; numbers that round to the next exponent and to infinity; subnormals;
  // NaNs, one of which has infinity's upper 16 bits.
  const special = [
    0x3f808000,
    0x3f818000,
    0x3f807fff,
    0x3f808001,
    0x3fffffff,
    0x7f7fffff,
    0xff7f8000,
    0x00008000,
    0x80018000,
  ]
    .concat([0x7f800000, 0xff800000, 0x7f800001, 0xff80ffff, 0x7fffffff]);
  const words = Uint32Array.from([...special, ...new Array(20).fill(0)]), C = words.length / 2; // a key and a value
  for (const [N, threads] of [[1, 1], [3, 1], [3, 2]]) { // if there is one token, each head writes its own part
    for (const name of ["reference", "cpu"]) {
      using device = await openDevice(name, { threads });
      const i32 = (...numbers: number[]) => device.tensor(Int32Array.from(numbers));
      const heads = 1, cache = device.tensor(new Float32Array(4 * 2 * C), [1, heads, 4, 2, C], { dtype: "bf16" });
      const qkv = new Float32Array(N * 3 * C), values = new Float32Array(words.buffer);
      for (let n = 0; n < N; n++) qkv.set(values, (3 * n + 1) * C);
      const places = { slot: i32(...new Array(N).fill(0)), position: i32(...Array.from({ length: N }, (_, n) => n)) };
      cachedAttention(device.tensor(qkv, [N, 3 * C]), cache, places);
      const expected = bf16ToF32(f32ToBf16(values)), after = await cache.data();
      for (let n = 0; n < N; n++) assertEquals([...after.subarray(2 * n * C, 2 * (n + 1) * C)], [...expected]);
      assert(after.subarray(2 * N * C).every((value) => value === 0));
    }
  }
});

Deno.test("cached_attention: a bf16 cache gives the same bits as an f32 cache with the same numbers, in any pieces", async () => {
  const [T, heads, width, S] = [41, 3, 21, 50],
    C = heads * width,
    qkv = normal(T * 3 * C),
    i32 = { dtype: "i32" } as const;
  const rounded = qkv.slice(); // its keys and values are rounded below, its queries are not
  for (let t = 0; t < T; t++) {
    const pair = rounded.subarray((3 * t + 1) * C, (3 * t + 3) * C);
    pair.set(bf16ToF32(f32ToBf16(pair)));
  }
  for (const threads of [1, 3]) {
    using device = await openDevice("cpu", { threads });
    const through = async (qkv: Float32Array, dtype: "f32" | "bf16", pieces: number[]) => {
      const cache = device.empty([2, heads, S, 2, width], { dtype }), y: number[] = [];
      let at = 0;
      for (const piece of pieces) {
        const places = {
          slot: device.tensor(new Int32Array(piece).fill(1)),
          position: device.tensor(Array.from({ length: piece }, (_, i) => at + i), [piece], i32),
        };
        y.push(
          ...await cachedAttention(
            device.tensor(qkv.slice(at * 3 * C, (at + piece) * 3 * C), [piece, 3 * C]),
            cache,
            places,
          ).data(),
        );
        at += piece;
      }
      return y;
    };
    const expected = await through(rounded, "f32", [T]);
    for (const pieces of [[T], [1, 17, 1, 22], new Array(T).fill(1)]) {
      assertEquals(await through(qkv, "bf16", pieces), expected);
    }
  }
});

Deno.test("cached_attention: texts of any lengths in one pass, among idle tokens, have the same bits as alone", async () => {
  const heads = 3, width = 21, C = heads * width, S = 40, slots = 5, i32 = { dtype: "i32" } as const;
  const random = new RandomGenerator(3), lengths = [31, 1, 17, 40], slotOf = [4, 0, 1, 3]; // slot 2 is empty
  const qkv = lengths.map((length) => normal(length * 3 * C));
  /** Runs all texts together, each in pieces of at most `most` tokens. The tokens of a pass are in random order. */
  const together = async (device: Device, most: number) => {
    const cache = device.tensor(new Float32Array(slots * S * 2 * C).fill(NaN), [slots, heads, S, 2, width]);
    const done = lengths.map(() => 0), y = lengths.map((length) => new Float64Array(length * C));
    while (done.some((count, text) => count < lengths[text])) {
      const tokens = lengths.flatMap((length, text) => {
        const count = Math.min(length - done[text], random.randint(most + 1));
        return Array.from({ length: count }, () => ({ text, at: done[text]++ }));
      });
      const pass = [...tokens, ...[{ text: -1, at: 0 }, { text: -1, at: 7 }]];
      for (let n = pass.length - 1; n > 0; n--) {
        const other = random.randint(n + 1);
        [pass[n], pass[other]] = [pass[other], pass[n]];
      }
      const rows = pass.flatMap(({ text, at }) =>
        text < 0 ? new Array(3 * C).fill(1) : [...qkv[text].subarray(3 * C * at, 3 * C * (at + 1))]
      );
      const numbers = (of: (token: typeof pass[0]) => number) => device.tensor(pass.map(of), [pass.length], i32);
      const places = { slot: numbers(({ text }) => text < 0 ? -1 : slotOf[text]), position: numbers(({ at }) => at) };
      const out = await cachedAttention(device.tensor(rows, [pass.length, 3 * C]), cache, places).data();
      for (const [n, { text, at }] of pass.entries()) {
        const row = out.subarray(n * C, (n + 1) * C);
        if (text < 0) assertEquals([...row], new Array(C).fill(0));
        else y[text].set(row, at * C);
      }
    }
    const untouched = (await cache.data()).subarray(2 * S * 2 * C, 3 * S * 2 * C);
    assert(untouched.every(Number.isNaN), "an idle token wrote");
    return y;
  };
  for (const threads of [1, 3]) {
    const device = await openDevice("cpu", { threads });
    const alone = await together(device, 1), reference = await together(new ReferenceDevice(), 9);
    for (const most of [3, 40]) assertEquals(await together(device, most), alone);
    alone.forEach((y, text) => assertClose(y, reference[text], tolerances.attention, `text ${text}`));
    device.close();
  }
});

Deno.test("cached_attention: if computed on the device, an invalid slot is idle and a position is clamped", async () => {
  for (const [number, place] of [[0, -7], [1, 1 << 30], [-1, 2], [2, 2], [1 << 30, 0], [-1 << 31, 0]]) {
    for (const others of [[], [1]]) { // if there is one token, each head writes its own part
      await assertAgrees(`slot ${number}, place ${place}`, { atol: 1e-6, rtol: 1e-6 }, (device) => {
        const cache = device.tensor(normal(2 * 4 * 2 * 6), [2, 2, 4, 2, 3]), N = 1 + others.length;
        const unseen = (...numbers: number[]) => {
          const tensor = device.tensor(numbers, [N], { dtype: "i32" });
          tensor.storage.block.bounds = undefined;
          return tensor;
        };
        const places = { slot: unseen(number, ...others), position: unseen(place, ...others) };
        return [cachedAttention(device.tensor(normal(N * 18), [N, 18]), cache, places), cache];
      });
    }
  }
});

Deno.test("attention_copy: the first places of slots are copied to other slots, and invalid slots are skipped", async () => {
  for (const [slots, S, heads, width] of [[5, 7, 2, 3], [5, 130, 1, 64], [5, 9, 1, 1]]) {
    for (const dtype of ["f32", "bf16"] as const) {
      await assertAgrees(`${slots} slots of ${S}, ${dtype}`, { atol: 0, rtol: 0 }, (device) => {
        const i32 = (...numbers: number[]) => device.tensor(Int32Array.from(numbers));
        const cache = device.tensor(normal(slots * S * 2 * heads * width), [slots, heads, S, 2, width], { dtype });
        const [from, to] = [i32(0, 3, -1, 0, 9), i32(1, 2, 4, 5, 4)];
        launch(attentionCopy, { from, to, count: i32(4, S + 3, 2, 1, 1), cache });
        return [cache];
      });
    }
  }
  const device = new ReferenceDevice(), values = normal(3 * 4 * 2), cache = device.tensor(values, [3, 1, 4, 2, 1]);
  const [from, to, count] = [2, 0, 3].map((number) => device.tensor(Int32Array.of(number)));
  launch(attentionCopy, { from, to, count, cache });
  assertEquals([...await cache.data()], [...values.subarray(16, 22), ...values.subarray(6)]);
});

Deno.test("attention: operands that do not fit are rejected", () => {
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
  const i32 = (...numbers: number[]) => device.tensor(numbers, [numbers.length], { dtype: "i32" });
  const documents = (starts: Tensor) => () => causalSelfAttention(zeros(1, 2, 6), { heads: 1, starts });
  const cached = (shape: number[], cache: number[], slot: number[], position: number[]) => () =>
    cachedAttention(zeros(...shape), zeros(...cache), { slot: i32(...slot), position: i32(...position) });
  const cases: [() => unknown, string][] = [
    [documents(i32(0, 0)), "causalSelfAttention to [1,2,6]: starts are [2], expected [1,2]"],
    [documents(i32(0, 2).alias([1, 2])), "a token's document starts at 2, expected 0 to 1"],
    [documents(i32(-1, 0).alias([1, 2])), "a token's document starts at -1, expected 0 to 1"],
    [cached([2, 6], [1, 1, 4, 2, 2], [0, 0], [3, 4]), "[1,1,4,2,2]: a token's position is 4, expected 0 to 3"],
    [cached([2, 6], [1, 1, 4, 2, 2], [0, 1], [0, 0]), "a token's slot is 1, expected -1 to 0"],
    [cached([2, 6], [1, 1, 4, 2, 2], [0, -2], [0, 0]), "a token's slot is -2"],
    [cached([2, 6], [1, 1, 4, 2, 2], [0], [0]), "slot is [1], expected [N] with N = 2"],
    [cached([1, 7], [1, 2, 4, 2, 1], [0], [0]), "the last axis is expected as 3 · 2 heads · 1 = 6"],
    [cached([1, 6], [1, 2, 4, 2], [0], [0]), "the cache is expected as [slots,heads,S,2,width]"],
    [cached([1, 6], [1, 2, 2 ** 18 + 1, 2, 1], [0], [0]), "with S up to 262144"],
  ];
  for (const [run, message] of cases) assertThrows(run, ShapeError, message);
  const learnt = device.tensor(Array(6).fill(0), [1, 1, 6], { requiresGrad: true });
  assertThrows(
    () => cachedAttention(learnt, zeros(1, 1, 4, 2, 2), { slot: i32(0), position: i32(3) }).backward(zeros(1, 1, 2)),
    TypeError,
    "no derivative",
  );
});
