/**
 * The vector instructions of a kernel's body, on eight elements at a time or on one.
 *
 * Eight elements are two 128-bit vectors, which V8 can pair into one 256-bit register. A single element goes through
 * the same instructions, so that its result has the same bits whether it is computed alone or among eight. Load both
 * halves, compute, then store: a store between the two loads keeps V8 from pairing them.
 */
import type { I32, I32Local, Local, WasmFunction } from "./assembler.ts";
import { bytesOfF32, leb, simd } from "./encoding.ts";

/** Eight lanes; or one lane, or one value in every lane, in which cases both halves are the same local. */
export type Vector = readonly [lower: Local<"v128">, upper: Local<"v128">];

type Unary = (a: Vector) => Vector;
type Binary = (a: Vector, b: Vector) => Vector;
type Ternary = (a: Vector, b: Vector, c: Vector) => Vector;
type Shift = (v: Vector, bits: I32) => Vector;

export class Lanes {
  constructor(private f: WasmFunction, readonly width: 8 | 1) {}

  #each(make: (part: 0 | 1) => number[]): Vector {
    const lower = this.f.let("v128", make(0));
    return [lower, this.width === 8 ? this.f.let("v128", make(1)) : lower];
  }
  #op = (opcode: number) => (...operands: Vector[]): Vector =>
    this.#each((part) => [...operands.flatMap((v) => this.f.get(v[part])), ...simd(opcode)]);
  #shift = (opcode: number) => (v: Vector, bits: I32): Vector =>
    this.#each((part) => [...this.f.get(v[part]), ...this.f.pushI32(bits), ...simd(opcode)]);

  /** Loads elements, starting `at` elements after the pointer. */
  load = (pointer: I32Local, at: I32): Vector => this.loadFrom(this.f.i32.at(pointer, at), 0);
  /** Loads elements, starting a fixed number of bytes after a pointer, which the loop advances. */
  loadFrom(pointer: I32Local, bytes: number): Vector {
    if (pointer.bf16) return this.#loadBf16(this.f.get(pointer), bytes);
    const opcode = simd(this.width === 8 ? 0x00 : 0x5c);
    return this.#each((part) => [...this.f.get(pointer), ...opcode, 2, ...leb(bytes + 16 * part)]);
  }
  /** Loads bf16 as f32, by appending 16 zero bits. */
  #loadBf16(from: number[], bytes: number): Vector {
    const widened = this.#each((part) =>
      this.width === 8
        ? [...from, ...simd(0x04), 1, ...leb(bytes + 8 * part)]
        : [...from, 0x2f, 1, ...leb(bytes), ...simd(0x11)]
    );
    return this.shl(widened, 16);
  }
  /** Loads signed integers of 16 bits. Such a number can also be a pair of 8-bit integers. */
  loadI16 = (pointer: I32Local, bytes: number): Vector => this.#loadHalves(pointer, bytes, 0x03);
  /**
   * Loads f16 that are neither negative, infinite nor NaN, and multiplies them by `factor`. Shifted left by 13, the
   * bits of an f16 are an f32 that is 2¹¹² times too small, because the biases of the exponents differ.
   */
  loadF16(pointer: I32Local, bytes: number, factor = 1): Vector {
    return this.mul(this.shl(this.#loadHalves(pointer, bytes, 0x04), 13), this.f.splat(2 ** 112 * factor));
  }
  /** Loads eight numbers of 16 bits as numbers of 32 bits. */
  #loadHalves = (pointer: I32Local, bytes: number, opcode: number): Vector =>
    this.#each((part) => [...this.f.get(pointer), ...simd(opcode), 1, ...leb(bytes + 8 * part)]);
  /** Loads one element into every lane. */
  loadSplat(pointer: I32Local, bytes: number): Vector {
    const one = this.f.let("v128", [...this.f.get(pointer), ...simd(0x09), 2, ...leb(bytes)]);
    return [one, one];
  }
  store = (pointer: I32Local, at: I32, value: Vector): void => this.storeTo(this.f.i32.at(pointer, at), 0, value);
  /** Stores the upper half first: V8 pairs two stores only in this order. */
  storeTo(pointer: I32Local, bytes: number, value: Vector): void {
    if (pointer.bf16) return this.#storeBf16(this.f.get(pointer), bytes, value);
    const [opcode, lane] = this.width === 8 ? [simd(0x0b), []] : [simd(0x5a), [0]];
    for (const part of this.width === 8 ? [1, 0] : [0]) {
      this.f.emit(...this.f.get(pointer), ...this.f.get(value[part]), ...opcode, 2, ...leb(bytes + 16 * part), ...lane);
    }
  }
  /**
   * Stores bf16, rounded to nearest, ties to even, as in src/half.ts. A NaN is not rounded, because rounding could make
   * it infinite.
   */
  #storeBf16(to: number[], bytes: number, value: Vector): void {
    const odd = this.and(this.shr(value, 16), this.splatI32(1));
    const rounded = this.addI32(this.addI32(value, this.splatI32(0x7fff)), odd);
    const word = this.select(this.eq(value, value), rounded, this.or(value, this.splatI32(0x400000)));
    const [lower, upper] = this.shr(word, 16).map((part) => this.f.get(part));
    if (this.width === 1) this.f.emit(...to, ...lower, ...simd(0x59), 1, ...leb(bytes), 0);
    else this.f.emit(...to, ...lower, ...upper, ...simd(0x86), ...simd(0x0b), 1, ...leb(bytes)); // as 8 × 16 bits
  }
  /** Adds the value to the elements in memory, or overwrites them if the pointer is {@linkcode Local.fresh}. */
  accumulate(pointer: I32Local, at: I32, value: Vector): void {
    const address = this.f.i32.at(pointer, at);
    this.storeTo(address, 0, pointer.fresh ? value : this.add(this.loadFrom(address, 0), value));
  }
  /**
   * A vector that {@linkcode assign} can change, with `start` in every lane. Make it before the loop that updates it.
   */
  accumulator = (start = 0): Vector => this.#each(() => [...simd(0x0c), ...Array(4).fill(bytesOfF32(start)).flat()]);
  /** into ← value. */
  assign(into: Vector, value: Vector): void {
    if (this.width === 8 && into[0] === into[1]) throw new TypeError("the halves of an accumulator must differ");
    for (const part of this.width === 8 ? [0, 1] : [0]) this.f.set(into[part], this.f.get(value[part]));
  }

  abs: Unary = this.#op(0xe0);
  neg: Unary = this.#op(0xe1);
  sqrt: Unary = this.#op(0xe3);
  add: Binary = this.#op(0xe4);
  sub: Binary = this.#op(0xe5);
  mul: Binary = this.#op(0xe6);
  div: Binary = this.#op(0xe7);
  /** b < a ? b : a, so a if either is NaN. */
  min: Binary = this.#op(0xea);
  /** a < b ? b : a, so a if either is NaN. */
  max: Binary = this.#op(0xeb);
  /** a · b + c, rounded once. */
  madd: Ternary = this.#op(0x105);
  /** c − a · b, rounded once. */
  nmadd: Ternary = this.#op(0x106);

  // Comparisons return masks: a lane has all bits set if its comparison is true, else none.
  eq: Binary = this.#op(0x41);
  ne: Binary = this.#op(0x42);
  lt: Binary = this.#op(0x43);
  gt: Binary = this.#op(0x44);
  le: Binary = this.#op(0x45);
  ge: Binary = this.#op(0x46);
  /** a in lanes where the mask is set, else b. */
  select = (mask: Vector, a: Vector, b: Vector): Vector => this.#op(0x52)(a, b, mask);
  and: Binary = this.#op(0x4e);
  /** The bits of a that are not set in b. */
  andNot: Binary = this.#op(0x4f);
  or: Binary = this.#op(0x50);
  xor: Binary = this.#op(0x51);

  /** A vector with an integer constant in every lane. */
  splatI32 = (value: number): Vector => this.f.splatI32(value);
  addI32: Binary = this.#op(0xae);
  subI32: Binary = this.#op(0xb1);
  mulI32: Binary = this.#op(0xb5);
  eqI32: Binary = this.#op(0x37);
  neI32: Binary = this.#op(0x38);
  shl: Shift = this.#shift(0xab);
  shrSigned: Shift = this.#shift(0xac);
  shr: Shift = this.#shift(0xad);
  /** Converts signed integers to floats. */
  fromI32: Unary = this.#op(0xfa);
  /**
   * Converts floats to integers, rounding towards zero. Values out of range give an undefined result; the caller
   * excludes them.
   */
  truncate: Unary = this.#op(0x101);

  /** The upper 32 bits of the 64-bit products of unsigned integers. */
  mulHigh(a: Vector, b: Vector): Vector {
    const odd = [1, 3, 5, 7].flatMap((n) => [0, 1, 2, 3].map((byte) => 4 * n + byte)); // upper words of four products
    return this.#each((part) => {
      const both = [...this.f.get(a[part]), ...this.f.get(b[part])];
      return [...both, ...simd(0xde), ...both, ...simd(0xdf), ...simd(0x0d), ...odd];
    });
  }
  /** Selects four lanes for each half: 0 to 3 are the lanes of a's half, 4 to 7 the lanes of b's half. */
  shuffle(a: Vector, b: Vector, lanes: readonly [number, number, number, number]): Vector {
    const bytes = lanes.flatMap((n) => [0, 1, 2, 3].map((byte) => 4 * n + byte));
    return this.#each((part) => [...this.f.get(a[part]), ...this.f.get(b[part]), ...simd(0x0d), ...bytes]);
  }
  /** The integers 0, 1, 2, … in the lanes. */
  iota(): Vector {
    const bytes = (from: number) => [...new Uint8Array(Int32Array.from([0, 1, 2, 3], (i) => from + i).buffer)];
    return this.#each((part) => [...simd(0x0c), ...bytes(4 * part)]);
  }
}
