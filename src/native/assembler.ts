/**
 * An assembler for the x86-64 instructions that the matrix product's machine code uses, after Intel's Software
 * Developer's Manual, volume 2 (REX, VEX and EVEX prefixes; disp8·N). Vectors have 512 bits. Methods are named after
 * the instructions.
 *
 * Left out on purpose: all other instructions, index registers, and vectors of other lengths.
 */

/** General registers of 64 bits, by their numbers. */
export const REGISTERS = {
  ...{ rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7 },
  ...{ r8: 8, r9: 9, r10: 10, r11: 11, r12: 12, r13: 13, r14: 14, r15: 15 },
} as const;
export type Register = keyof typeof REGISTERS;
/** An address: the value of a register, plus a number of bytes. */
export type Address = readonly [base: Register, bytes: number];
/** The mask register whose set bits select the elements that an instruction loads or stores; 0 for all elements. */
export type Mask = 0 | 1 | 2;
/** When a jump is taken after a comparison of unsigned numbers; `zero` also means equal. */
const CONDITIONS = { below: 0x2, notBelow: 0x3, zero: 0x4, notZero: 0x5, notAbove: 0x6, above: 0x7 } as const;
export type Condition = keyof typeof CONDITIONS;
/** A position in the code. Jumps can refer to it before the position is known. */
export class Label {
  at: number | undefined;
  readonly jumps: number[] = [];
}

const number = (register: Register): number => REGISTERS[register];
const int32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => value >> shift & 255);
const fitsByte = (value: number): boolean => value >= -128 && value <= 127;

/** An EVEX opcode: its map (1: 0F, 2: 0F38), its mandatory prefix (0: none, 1: 66), and the opcode byte. */
type Evex = readonly [map: 1 | 2, prefix: 0 | 1, opcode: number];

/** Machine code under construction. */
export class Assembler {
  #bytes: number[] = [];
  /** Number of jumps whose labels are not placed yet. */
  #open = 0;
  /**
   * The code.
   *
   * @throws {TypeError} if the label of a jump was never placed
   */
  get bytes(): Uint8Array<ArrayBuffer> {
    if (this.#open > 0) throw new TypeError("assembler: a label was never placed");
    return Uint8Array.from(this.#bytes);
  }
  /** Number of bytes so far. */
  get length(): number {
    return this.#bytes.length;
  }
  #emit(...bytes: number[]): void {
    this.#bytes.push(...bytes);
  }

  /** Encodes `reg` and an address. The displacement takes one byte if it is a small multiple of `scale` (disp8·N). */
  #memory(reg: number, [base, bytes]: Address, scale = 1): number[] {
    const rm = number(base) & 7, sib = rm === 4 ? [0x24] : [], short = bytes / scale;
    const byte = (mod: number) => mod << 6 | (reg & 7) << 3 | rm;
    if (bytes === 0 && rm !== 5) return [byte(0), ...sib];
    if (Number.isInteger(short) && fitsByte(short)) return [byte(1), ...sib, short & 255];
    return [byte(2), ...sib, ...int32(bytes)];
  }
  /** The REX prefix, if one is needed. */
  #rex(wide: boolean, reg: number, rm: number): number[] {
    const bits = (wide ? 8 : 0) | (reg >> 3) << 2 | rm >> 3;
    return bits ? [0x40 | bits] : [];
  }
  /** An instruction on two 64-bit registers. */
  #two(opcode: number, reg: number, rm: number): void {
    this.#emit(...this.#rex(true, reg, rm), opcode, 0xc0 | (reg & 7) << 3 | rm & 7);
  }
  /** An instruction with a constant; `extension` selects the operation. */
  #constant(extension: number, to: Register, value: number): void {
    const rm = number(to), short = fitsByte(value), modrm = 0xc0 | extension << 3 | rm & 7;
    // For long constants the accumulator has an encoding of its own.
    const long = rm === 0 ? [extension << 3 | 5] : [0x81, modrm];
    this.#emit(...this.#rex(true, 0, rm), ...(short ? [0x83, modrm, value & 255] : [...long, ...int32(value)]));
  }

  mov(to: Register, from: Register): void {
    this.#two(0x89, number(from), number(to));
  }
  /** Loads 32 bits; the upper half becomes zeros. */
  load(to: Register, from: Address): void {
    this.#emit(...this.#rex(false, number(to), number(from[0])), 0x8b, ...this.#memory(number(to), from));
  }
  /** Stores the lower 32 bits. */
  store(to: Address, from: Register): void {
    this.#emit(...this.#rex(false, number(from), number(to[0])), 0x89, ...this.#memory(number(from), to));
  }
  /** Loads a constant of 32 bits; the upper half becomes zeros. */
  set(to: Register, value: number): void {
    this.#emit(...this.#rex(false, 0, number(to)), 0xb8 | number(to) & 7, ...int32(value));
  }
  add(to: Register, value: Register | number): void {
    if (typeof value === "number") this.#constant(0, to, value);
    else this.#two(0x01, number(value), number(to));
  }
  sub(to: Register, value: number): void {
    this.#constant(5, to, value);
  }
  cmp(left: Register, value: number): void {
    this.#constant(7, left, value);
  }
  test(left: Register, right: Register): void {
    this.#two(0x85, number(right), number(left));
  }
  dec(register: Register): void {
    this.#two(0xff, 1, number(register));
  }
  /** Shifts left by the value of cl. */
  shlByCl(register: Register): void {
    this.#two(0xd3, 4, number(register));
  }
  shr(register: Register, bits: number): void {
    this.#two(0xc1, 5, number(register));
    this.#emit(bits);
  }
  /** Tests a bit; the condition `below` is then true if the bit is set. */
  bt(register: Register, bit: number): void {
    const rm = number(register);
    this.#emit(...this.#rex(false, 0, rm), 0x0f, 0xba, 0xe0 | rm & 7, bit);
  }
  push(register: Register): void {
    this.#emit(...this.#rex(false, 0, number(register)), 0x50 | number(register) & 7);
  }
  pop(register: Register): void {
    this.#emit(...this.#rex(false, 0, number(register)), 0x58 | number(register) & 7);
  }
  ret(): void {
    this.#emit(0xc3);
  }
  cpuid(): void {
    this.#emit(0x0f, 0xa2);
  }
  xgetbv(): void {
    this.#emit(0x0f, 0x01, 0xd0);
  }

  /** Places a label here, and resolves the jumps that refer to it. */
  place(label: Label): void {
    label.at = this.length;
    for (const jump of label.jumps) this.#aim(jump, label.at);
    this.#open -= label.jumps.length;
  }
  jump(label: Label, condition?: Condition): void {
    if (condition) this.#emit(0x0f, 0x80 | CONDITIONS[condition]);
    else this.#emit(0xe9);
    this.#emit(0, 0, 0, 0);
    const jump = this.length - 4;
    if (label.at !== undefined) return this.#aim(jump, label.at);
    label.jumps.push(jump);
    this.#open++;
  }
  #aim(jump: number, at: number): void {
    int32(at - jump - 4).forEach((byte, i) => this.#bytes[jump + i] = byte);
  }

  /** A vector instruction. Operands: a register, a second source (0: none), and a register or an address. */
  #evex(
    [map, prefix, opcode]: Evex,
    reg: number,
    source: number,
    rm: number | Address,
    { mask = 0, zeroing = false, scale = 64 }: { mask?: Mask; zeroing?: boolean; scale?: number } = {},
  ): void {
    const inverted = (n: number, bit: number) => (n >> bit & 1) ^ 1, vector = typeof rm === "number";
    const [x, b] = vector ? [inverted(rm, 4), inverted(rm, 3)] : [1, inverted(number(rm[0]), 3)];
    this.#emit(
      0x62,
      inverted(reg, 3) << 7 | x << 6 | b << 5 | inverted(reg, 4) << 4 | map,
      (~source & 15) << 3 | 4 | prefix,
      Number(zeroing) << 7 | 0x40 | inverted(source, 4) << 3 | mask,
      opcode,
      ...(vector ? [0xc0 | (reg & 7) << 3 | rm & 7] : this.#memory(reg, rm, scale)),
    );
  }
  /** Loads elements. Elements outside the mask become zeros, and their memory is not read. */
  vmovupsLoad(to: number, from: Address, mask: Mask = 0): void {
    this.#evex([1, 0, 0x10], to, 0, from, { mask, zeroing: mask > 0 });
  }
  vmovupsStore(to: Address, from: number, mask: Mask = 0): void {
    this.#evex([1, 0, 0x11], from, 0, to, { mask });
  }
  vbroadcastss(to: number, from: Address): void {
    this.#evex([2, 1, 0x18], to, 0, from, { scale: 4 });
  }
  /** sum += a · b, rounded once. */
  vfmadd231ps(sum: number, a: number, b: number): void {
    this.#evex([2, 1, 0xb8], sum, a, b);
  }
  vaddps(to: number, a: number, b: number): void {
    this.#evex([1, 0, 0x58], to, a, b);
  }
  vpxord(to: number, a: number, b: number): void {
    this.#evex([1, 1, 0xef], to, a, b);
  }
  /** Sets a mask register from the lower 16 bits of a register, eax to edi. */
  kmovw(to: Mask, from: Register): void {
    this.#emit(0xc5, 0xf8, 0x92, 0xc0 | to << 3 | number(from));
  }
  vzeroupper(): void {
    this.#emit(0xc5, 0xf8, 0x77);
  }
}
