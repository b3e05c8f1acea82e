/**
 * Machine code for matrix products: C = base + A · B over packed panels, as in src/wasm/gemm.ts, with vectors of 512
 * bits.
 *
 * The tile has 14 rows and 32 columns. Its 28 sums, two vectors of a row of B and two of elements of A fill the 32
 * registers. Each sum adds its products one after another with fused multiply-adds, starting from zero, and then adds
 * `base`. This is the order of gemm.ts, so the results have the same bits.
 */
import { NATIVE } from "../wasm/gemm.ts";
import { type Address, type Assembler, Label, type Register } from "./assembler.ts";

const { rows: ROWS, columns: COLUMNS } = NATIVE;
/** Offsets in bytes of the arguments, in the order of Multiply (src/wasm/gemm.ts). */
const ARGUMENT = { a: 0, b: 4, c: 8, stride: 12, rows: 16, columns: 20, K: 24, base: 28, baseStride: 32 } as const;
/** Registers that a function has to preserve (System V Application Binary Interface, AMD64). */
const SAVED: readonly Register[] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];

/**
 * Emits the function that multiplies. Its parameters are the address of the arguments, and the address of the memory to
 * which the arguments' pointers are relative. It has the signature of bsearch's comparison functions.
 */
export function emitMultiply(x: Assembler): void {
  const argument = (name: keyof typeof ARGUMENT): Address => ["rdi", ARGUMENT[name]];
  const pointer = (to: Register, name: keyof typeof ARGUMENT) => {
    x.load(to, argument(name));
    x.add(to, "rsi");
  };
  for (const register of SAVED) x.push(register);
  pointer("rbx", "b");
  x.load("rbp", argument("columns"));
  x.load("r8", argument("stride"));
  x.load("r9", argument("baseStride"));

  const panel = new Label(), whole = new Label(), noBase = new Label(), tile = new Label(), done = new Label();
  x.place(panel); // a panel of B: rbx is its address, rbp the number of columns left
  x.mov("rcx", "rbp");
  x.cmp("rcx", COLUMNS);
  x.jump(whole, "notAbove");
  x.set("rcx", COLUMNS);
  x.place(whole);
  x.set("rax", 1);
  x.shlByCl("rax");
  x.dec("rax");
  x.kmovw(1, "rax");
  x.shr("rax", 16);
  x.kmovw(2, "rax");
  pointer("r12", "a");
  pointer("r13", "c");
  x.load("r14", argument("base"));
  x.test("r14", "r14");
  x.jump(noBase, "zero");
  x.add("r14", "rsi");
  x.place(noBase);
  x.load("r15", argument("rows"));

  x.place(tile); // r12: panel of A, r13: the tile's place in C, r14: base or 0, r15: rows left
  const half = new Label(), next = new Label();
  x.cmp("rbp", COLUMNS / 2);
  x.jump(half, "notAbove");
  emitTile(x, argument("K"), [0, 1]);
  x.jump(next);
  x.place(half);
  emitTile(x, argument("K"), [0]);
  x.place(next);
  x.sub("r15", ROWS);
  x.jump(tile, "above");

  x.mov("rbx", "rdx"); // rdx: the end of the panel
  x.load("rax", argument("c"));
  x.add("rax", 4 * COLUMNS);
  x.store(argument("c"), "rax");
  const plain = new Label();
  x.load("rax", argument("base"));
  x.test("rax", "rax");
  x.jump(plain, "zero");
  x.add("rax", 4 * COLUMNS);
  x.store(argument("base"), "rax");
  x.place(plain);
  x.sub("rbp", COLUMNS);
  x.jump(panel, "above");

  x.place(done);
  x.vzeroupper();
  for (const register of SAVED.toReversed()) x.pop(register);
  x.ret();
}

/** The register that holds the sums of one row, in the first or second half of the tile's columns. */
const sum = (row: number, half: number): number => 4 + 2 * row + half;

/** The first or second half of a tile's columns. */
type Half = 0 | 1;

/**
 * Emits the product of one tile: of all its columns, or of the first half only if no more columns are left. Afterwards
 * r12 to r14 point to the next tile, and rdx to the end of the panel.
 */
function emitTile(x: Assembler, K: Address, halves: readonly Half[]): void {
  for (let row = 0; row < ROWS; row++) {
    for (const half of halves) x.vpxord(sum(row, half), sum(row, half), sum(row, half));
  }
  x.mov("rdx", "rbx");
  x.load("rcx", K);
  const step = new Label();
  x.place(step);
  for (const half of halves) x.vmovupsLoad(half, ["rdx", 64 * half]);
  for (let row = 0; row < ROWS; row++) {
    const element = 2 + row % 2;
    x.vbroadcastss(element, ["r12", 4 * row]);
    for (const half of halves) x.vfmadd231ps(sum(row, half), half, element);
  }
  x.add("r12", 4 * ROWS);
  x.add("rdx", 4 * COLUMNS);
  x.dec("rcx");
  x.jump(step, "notZero");
  emitFinish(x, halves);
}

/** Adds the base at r14, if there is one, and stores the tile's rows and columns that are inside C. */
function emitFinish(x: Assembler, halves: readonly Half[]): void {
  const end = new Label(), plain = new Label();
  const rows = (based: boolean) => {
    for (let row = 0; row < ROWS; row++) {
      if (row > 0) {
        x.cmp("r15", row);
        x.jump(end, "notAbove");
      }
      for (const half of halves) {
        if (based) {
          x.vmovupsLoad(half, ["r14", 64 * half], half ? 2 : 1);
          x.vaddps(sum(row, half), half, sum(row, half));
        }
        x.vmovupsStore(["r13", 64 * half], sum(row, half), half ? 2 : 1);
      }
      x.add("r13", "r8");
      if (based) x.add("r14", "r9");
    }
  };
  x.test("r14", "r14");
  x.jump(plain, "zero");
  rows(true);
  x.jump(end);
  x.place(plain);
  rows(false);
  x.place(end);
}

/**
 * Emits a function whose parameter is the address at which it stores the features of the processor and the system, as
 * four 32-bit numbers: the highest leaf of CPUID, ecx of leaf 1, ebx of leaf 7, and XCR0, or 0 if the system has not
 * enabled it.
 */
export function emitFeatures(x: Assembler): void {
  x.push("rbx");
  const ask = (leaf: number) => {
    x.set("rax", leaf);
    x.set("rcx", 0);
    x.cpuid();
  };
  ask(0);
  x.store(["rdi", 0], "rax");
  ask(7);
  x.store(["rdi", 8], "rbx");
  ask(1);
  x.store(["rdi", 4], "rcx");
  const off = new Label();
  x.set("rax", 0);
  x.bt("rcx", 27); // OSXSAVE: without it, xgetbv is not a valid instruction
  x.jump(off, "notBelow");
  x.set("rcx", 0);
  x.xgetbv();
  x.place(off);
  x.store(["rdi", 12], "rax");
  x.pop("rbx");
  x.ret();
}
