/** The scalar instructions of a function under construction. Each stores its result in a new local. */
import type { F32, F32Local, F64Local, I32, I32Local, WasmFunction } from "./assembler.ts";
import { bytesOfF64, leb, simd } from "./encoding.ts";
import { Lanes, type Vector } from "./lanes.ts";

export class F32Instructions {
  constructor(private f: WasmFunction) {}

  #op = (opcode: number) => (...operands: F32[]): F32Local =>
    this.f.let("f32", [...operands.flatMap((value) => this.f.pushF32(value)), opcode]);
  #compare = (opcode: number) => (a: F32, b: F32): I32Local =>
    this.f.let("i32", [...this.f.pushF32(a), ...this.f.pushF32(b), opcode]);

  constant = (value: number): F32Local => this.f.let("f32", this.f.pushF32(value));
  /** Converts a signed integer. */
  fromInt = (n: I32): F32Local => this.f.let("f32", [...this.f.pushI32(n), 0xb2]);
  /** Converts an unsigned integer, such as a size. */
  fromSize = (n: I32): F32Local => this.f.let("f32", [...this.f.pushI32(n), 0xb3]);
  fromF64 = (x: F64Local): F32Local => this.f.let("f32", [...this.f.get(x), 0xb6]);
  neg: (a: F32) => F32Local = this.#op(0x8c);
  floor: (a: F32) => F32Local = this.#op(0x8e);
  /** Uses the vector instruction: V8 encodes the scalar one as legacy SSE, which costs 100 ns amid 256-bit code. */
  sqrt = (value: F32): F32Local => this.through(value, (v, x) => v.sqrt(x));
  add: (a: F32, b: F32) => F32Local = this.#op(0x92);
  sub: (a: F32, b: F32) => F32Local = this.#op(0x93);
  mul: (a: F32, b: F32) => F32Local = this.#op(0x94);
  div: (a: F32, b: F32) => F32Local = this.#op(0x95);
  min: (a: F32, b: F32) => F32Local = this.#op(0x96);
  max: (a: F32, b: F32) => F32Local = this.#op(0x97);
  eq: (a: F32, b: F32) => I32Local = this.#compare(0x5b);
  gt: (a: F32, b: F32) => I32Local = this.#compare(0x5e);
  ge: (a: F32, b: F32) => I32Local = this.#compare(0x60);
  /** a if the condition is not zero, else b. */
  select = (condition: I32Local, a: F32, b: F32): F32Local =>
    this.f.let("f32", [...this.f.pushF32(a), ...this.f.pushF32(b), ...this.f.get(condition), 0x1b]);
  /** Loads the element `index` elements after `pointer`. */
  load = (pointer: I32Local, index = 0): F32Local =>
    this.f.let("f32", [
      ...this.f.get(pointer),
      ...(pointer.bf16 ? [0x2f, 1, ...leb(2 * index), 0x41, 16, 0x74, 0xbe] : [0x2a, 2, ...leb(4 * index)]),
    ]);
  /** Loads an f16 (see {@linkcode Lanes.loadF16}). */
  loadF16 = (pointer: I32Local): F32Local =>
    this.mul(this.f.let("f32", [...this.f.get(pointer), 0x2f, 1, 0, 0x41, 13, 0x74, 0xbe]), 2 ** 112);
  /** Loads the element `at` elements after `pointer`. */
  loadAt = (pointer: I32Local, at: I32): F32Local => this.load(this.f.i32.at(pointer, at));
  store = (pointer: I32Local, at: I32, value: F32): void =>
    this.f.emit(...this.f.get(this.f.i32.at(pointer, at)), ...this.f.pushF32(value), 0x38, 2, 0);
  /** Adds the value to the element in memory, or overwrites it if the pointer is {@linkcode Local.fresh}. */
  accumulate = (pointer: I32Local, at: I32, value: F32): void =>
    this.store(pointer, at, pointer.fresh ? value : this.add(this.loadAt(pointer, at), value));
  /** Applies a vector function, such as exp or log, to one value. */
  through = (value: F32, body: (v: Lanes, x: Vector) => Vector): F32Local => {
    const [result] = body(new Lanes(this.f, 1), this.f.splat(value));
    return this.f.let("f32", [...this.f.get(result), ...simd(0x1f), 0]);
  };
}

/** Instructions in double precision, for sums over all parameters of a model. */
export class F64Instructions {
  constructor(private f: WasmFunction) {}

  constant = (value: number): F64Local => this.f.let("f64", [0x44, ...bytesOfF64(value)]);
  fromF32 = (x: F32): F64Local => this.f.let("f64", [...this.f.pushF32(x), 0xbb]);
  sqrt = (x: F64Local): F64Local =>
    this.f.let("f64", [...this.f.get(x), ...simd(0x14), ...simd(0xef), ...simd(0x21), 0]);
  add = (a: F64Local, b: F64Local): F64Local => this.f.let("f64", [...this.f.get(a), ...this.f.get(b), 0xa0]);
}

/**
 * Instructions on integers. They treat integers as unsigned, because addresses reach 4 GiB; the exception is
 * `ltSigned`.
 */
export class I32Instructions {
  constructor(private f: WasmFunction) {}

  #op = (opcode: number) => (a: I32, b: I32): I32Local =>
    this.f.let("i32", [...this.f.pushI32(a), ...this.f.pushI32(b), opcode]);
  #extreme = (compare: number) => (a: I32, b: I32): I32Local =>
    this.f.let("i32", [a, b, a, b].flatMap((value) => this.f.pushI32(value)).concat(compare, 0x1b));

  constant = (value: number): I32Local => this.f.let("i32", this.f.pushI32(value));
  /** A copy of an address or a counter, which {@linkcode advance} can change without changing the original. */
  copy = (from: I32): I32Local => this.f.let("i32", this.f.pushI32(from));
  advance = (pointer: I32Local, bytes: I32): void =>
    this.f.set(pointer, [...this.f.get(pointer), ...this.f.pushI32(bytes), 0x6a]);
  add: (a: I32, b: I32) => I32Local = this.#op(0x6a);
  sub: (a: I32, b: I32) => I32Local = this.#op(0x6b);
  mul: (a: I32, b: I32) => I32Local = this.#op(0x6c);
  div: (a: I32, b: I32) => I32Local = this.#op(0x6e);
  /** ⌈a / b⌉ */
  divUp = (a: I32, b: I32): I32Local =>
    this.div(typeof b === "number" ? this.add(a, b - 1) : this.sub(this.add(a, b), 1), b);
  rem: (a: I32, b: I32) => I32Local = this.#op(0x70);
  and: (a: I32, b: I32) => I32Local = this.#op(0x71);
  or: (a: I32, b: I32) => I32Local = this.#op(0x72);
  xor: (a: I32, b: I32) => I32Local = this.#op(0x73);
  shl: (a: I32, b: I32) => I32Local = this.#op(0x74);
  shr: (a: I32, b: I32) => I32Local = this.#op(0x76);
  eq: (a: I32, b: I32) => I32Local = this.#op(0x46);
  ne: (a: I32, b: I32) => I32Local = this.#op(0x47);
  ltSigned: (a: I32, b: I32) => I32Local = this.#op(0x48);
  lt: (a: I32, b: I32) => I32Local = this.#op(0x49);
  min: (a: I32, b: I32) => I32Local = this.#extreme(0x49);
  max: (a: I32, b: I32) => I32Local = this.#extreme(0x4b);
  /** a if the condition is not zero, else b. */
  select = (condition: I32Local, a: I32, b: I32): I32Local =>
    this.f.let("i32", [...this.f.pushI32(a), ...this.f.pushI32(b), ...this.f.get(condition), 0x1b]);
  load = (pointer: I32Local, index = 0): I32Local =>
    this.f.let("i32", [...this.f.get(pointer), 0x28, 2, ...leb(4 * index)]);
  /** Loads the signed byte `index` bytes after `pointer`. */
  load8 = (pointer: I32Local, index: number): I32Local =>
    this.f.let("i32", [...this.f.get(pointer), 0x2c, 0, ...leb(index)]);
  loadAt = (pointer: I32Local, at: I32): I32Local => this.load(this.at(pointer, at));
  store = (pointer: I32Local, at: I32, value: I32): void =>
    this.f.emit(...this.f.get(this.at(pointer, at)), ...this.f.pushI32(value), 0x36, 2, 0);
  /** The address `at` elements after `pointer`. */
  at = (pointer: I32Local, at: I32): I32Local => {
    const shift = pointer.bf16 ? 1 : 2, { bf16 } = pointer;
    return Object.assign(this.f.let("i32", [...this.f.get(pointer), ...this.f.pushI32(at), 0x41, shift, 0x74, 0x6a]), {
      bf16,
    });
  };
  /** The float with the same bits. */
  asF32 = (value: I32): F32Local => this.f.let("f32", [...this.f.pushI32(value), 0xbe]);
  /**
   * Converts a float, rounding towards zero. Values out of range become the nearest integer in range, NaN becomes 0.
   */
  truncate = (value: F32): I32Local => this.f.let("i32", [...this.f.pushF32(value), 0xfc, 0x00]);
}
