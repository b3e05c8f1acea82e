import { assertEquals, assertThrows } from "@std/assert";
import { type Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { exp } from "../../src/wasm/math.ts";

const pages = { initial: 1, maximum: 1, shared: true };

function assemble(
  parameters: number,
  build: (f: WasmFunction, ...p: ReturnType<WasmFunction["i32"]["copy"]>[]) => void,
) {
  const memory = new WebAssembly.Memory(pages), f = WasmFunction.main("test");
  build(f, ...Array.from({ length: parameters }, () => f.parameter("i32")));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(f.module(pages)), {
    env: { memory, scratch: 1024 },
  });
  return { run: exports.run as (...args: number[]) => void, floats: new Float32Array(memory.buffer) };
}

Deno.test("reductions nest in loops, several at once, and using a value after its loop throws", () => {
  let escaped: Vector | undefined;
  const { run, floats } = assemble(7, (f, x, rows, n, ...results) => {
    const minus = f.splat(-1);
    f.loop(0, rows, 1, (row) => {
      const xRow = f.i32.at(x, f.i32.mul(row, n)), offset = f.splat(f.f32.fromSize(row));
      const sums = f.reduce("add", 2, n, (at, v) => [v.load(xRow, at), v.add(offset, v.load(xRow, at))]);
      const greatest = f.reduce("max", 2, n, (at, v) => [v.load(xRow, at), v.mul(minus, escaped = v.load(xRow, at))]);
      [...sums, ...greatest].forEach((value, i) => f.f32.store(results[i], row, value));
    });
    assertThrows(() => f.get(escaped![0]), TypeError, "test: a value is used after the loop that made it");
  });
  for (const length of [1, 7, 8, 9, 15, 16, 17, 31, 40]) {
    const values = Array.from({ length: 3 * length }, (_, i) => (i * i * 7 + 3 * i) % 101 - 50); // sums are exact
    floats.set(values, 1024);
    run(4096, 3, length, 8192, 8208, 8224, 8240);
    for (let row = 0; row < 3; row++) {
      const part = values.slice(row * length, (row + 1) * length), sum = part.reduce((a, b) => a + b);
      const expected = [sum, sum + row * length, Math.max(...part), 0 - Math.min(...part)];
      assertEquals(expected.map((_, i) => floats[2048 + 4 * i + row]), expected, `row ${row} of ${length}`);
    }
  }
});

Deno.test("functions call one another, and assigned values are available after a condition", () => {
  const { run, floats } = assemble(2, (f, out, n) => {
    const twice = f.define("twice", ["i32", "i32", "f32"], (g, address, index, x) => {
      g.f32.store(address, index, g.f32.mul(x, 2));
    });
    const fourfold = f.define("fourfold", ["i32", "i32", "f32"], (g, address, index, x) => {
      g.call(twice, address, index, g.f32.mul(x, 2));
    });
    f.loop(0, n, 1, (i) => {
      const value = f.f32.constant(1);
      f.when(
        f.i32.eq(f.i32.and(i, 1), 0),
        () => f.assign(value, f.f32.fromSize(i)),
        () => f.assign(value, f.f32.neg(1)),
      );
      f.call(fourfold, out, i, value);
    });
  });
  run(4096, 5);
  assertEquals(Array.from(floats.subarray(1024, 1030)), [0, -4, 8, -4, 16, 0]);
});

Deno.test("exp is precise to a few units in the last place, also at the ends of its range", () => {
  const { run, floats } = assemble(
    3,
    (f, x, y, n) => f.forEach(0, n, (at, v) => v.store(y, at, exp(f, v, v.load(x, at)))),
  );
  const values = Float32Array.from({ length: 999 }, (_, i) => (i - 499) * 0.1731);
  floats.set(values, 1024);
  run(4096, 16384, values.length);
  values.forEach((x, i) => {
    const expected = x < -86.6 ? 0 : Math.exp(x), actual = floats[4096 + i];
    if (!(Math.abs(actual - expected) <= 2e-7 * expected)) {
      throw new Error(`exp(${x}) is ${actual}, expected ${expected}`);
    }
  });
  const edges = [0, -0, Infinity, -Infinity, NaN, 88.7, 89, -104, 88.5, 1e30, -1e30];
  floats.set(edges, 1024);
  run(4096, 16384, edges.length);
  const [zero, minusZero, infinite, none, nan, large, over, under, near, huge, tiny] = floats.subarray(4096);
  assertEquals([zero, minusZero, infinite, none, over, under, huge, tiny], [
    1,
    1,
    Infinity,
    0,
    Infinity,
    0,
    Infinity,
    0,
  ]);
  assertEquals(nan, NaN);
  for (const [actual, x] of [[large, 88.7], [near, 88.5]]) {
    const expected = Math.exp(Math.fround(x));
    if (!(Math.abs(actual / expected - 1) < 2e-7)) throw new Error(`exp(${x}) is ${actual}, expected ${expected}`);
  }
});
