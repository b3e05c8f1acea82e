/** Compares every instruction form of the native tile's assembler with the bytes of GNU `as`. Needs binutils. */
import { assertEquals, assertThrows } from "@std/assert";
import { type Address, Assembler, Label, type Mask, type Register, REGISTERS } from "../../src/native/assembler.ts";
import { inFolder } from "../testing.ts";

const registers = Object.keys(REGISTERS) as Register[];
/** The name of a register's lower half. */
const half = (register: Register) => /\d/.test(register) ? `${register}d` : `e${register.slice(1)}`;
const address = ([base, bytes]: Address) => `[${base}${bytes < 0 ? bytes : `+${bytes}`}]`;
const masked = (mask: Mask, zeroing = false) => mask ? ` {k${mask}}${zeroing ? "{z}" : ""}` : "";

/** Each instruction as text for `as`, and as a call of the assembler. */
function* instructions(): Generator<[text: string, emit: (x: Assembler) => void]> {
  const addresses = (bytes: number[]) => registers.flatMap((base) => bytes.map((n): Address => [base, n]));
  for (const to of registers) {
    for (const from of registers) {
      yield [`mov ${to}, ${from}`, (x) => x.mov(to, from)];
      yield [`add ${to}, ${from}`, (x) => x.add(to, from)];
      yield [`test ${to}, ${from}`, (x) => x.test(to, from)];
    }
    for (const value of [0, 1, -1, 127, -128, 128, -129, 56, 65535, 2 ** 31 - 1, -(2 ** 31)]) {
      yield [`add ${to}, ${value}`, (x) => x.add(to, value)];
      yield [`sub ${to}, ${value}`, (x) => x.sub(to, value)];
      yield [`cmp ${to}, ${value}`, (x) => x.cmp(to, value)];
      yield [`mov ${half(to)}, ${value}`, (x) => x.set(to, value)];
    }
    yield [`dec ${to}`, (x) => x.dec(to)];
    yield [`shl ${to}, cl`, (x) => x.shlByCl(to)];
    yield [`shr ${to}, 16`, (x) => x.shr(to, 16)];
    yield [`bt ${half(to)}, 27`, (x) => x.bt(to, 27)];
    yield [`push ${to}`, (x) => x.push(to)];
    yield [`pop ${to}`, (x) => x.pop(to)];
    for (const from of addresses([0, 4, -4, 127, 128, -129])) {
      yield [`mov ${half(to)}, dword ptr ${address(from)}`, (x) => x.load(to, from)];
      yield [`mov dword ptr ${address(from)}, ${half(to)}`, (x) => x.store(from, to)];
    }
  }
  for (const to of [1, 2] as const) {
    for (const from of registers.slice(0, 8)) yield [`kmovw k${to}, ${half(from)}`, (x) => x.kmovw(to, from)];
  }
  yield ["ret", (x) => x.ret()];
  yield ["cpuid", (x) => x.cpuid()];
  yield ["xgetbv", (x) => x.xgetbv()];
  yield ["vzeroupper", (x) => x.vzeroupper()];
  for (const from of addresses([0, 4, 52, 64, -64, 508, 512, 8128, 8192])) {
    for (const vector of [0, 3, 7, 8, 15, 16, 23, 24, 31]) {
      for (const mask of [0, 1, 2] as const) {
        const [load, store] = [masked(mask, true), masked(mask)];
        yield [`vmovups zmm${vector}${load}, ${address(from)}`, (x) => x.vmovupsLoad(vector, from, mask)];
        yield [`vmovups ${address(from)}${store}, zmm${vector}`, (x) => x.vmovupsStore(from, vector, mask)];
      }
      yield [`vbroadcastss zmm${vector}, dword ptr ${address(from)}`, (x) => x.vbroadcastss(vector, from)];
    }
  }
  const vectors = [0, 1, 5, 8, 12, 16, 19, 24, 31];
  for (const a of vectors) {
    for (const b of vectors) {
      for (const c of vectors) {
        const text = `zmm${a}, zmm${b}, zmm${c}`;
        yield [`vfmadd231ps ${text}`, (x) => x.vfmadd231ps(a, b, c)];
        yield [`vaddps ${text}`, (x) => x.vaddps(a, b, c)];
        yield [`vpxord ${text}`, (x) => x.vpxord(a, b, c)];
      }
    }
  }
  const conditions = {
    below: "jb",
    notBelow: "jae",
    zero: "jz",
    notZero: "jnz",
    notAbove: "jbe",
    above: "ja",
  } as const;
  for (const [condition, name] of Object.entries(conditions)) {
    yield [`{disp32} ${name} .+18\n{disp32} ${name} .\nret\nret\nret\nret\nret\nret`, (x) => {
      const forth = new Label(), back = new Label();
      x.jump(forth, condition as keyof typeof conditions);
      x.place(back);
      x.jump(back, condition as keyof typeof conditions);
      for (let i = 0; i < 6; i++) x.ret();
      x.place(forth);
    }];
  }
  yield ["{disp32} jmp .+6\nret", (x) => {
    const forth = new Label();
    x.jump(forth);
    x.ret();
    x.place(forth);
  }];
}

/** The bytes that GNU `as` makes, or undefined if binutils are not installed. */
async function gnu(text: string): Promise<Uint8Array | undefined> {
  let bytes: Uint8Array | undefined;
  await inFolder(async (folder) => {
    const run = async (...[command, ...args]: string[]) => {
      const { success, stderr } = await new Deno.Command(command, { args }).output();
      if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
    };
    const [source, object, binary] = ["s", "o", "bin"].map((ending) => `${folder}/code.${ending}`);
    await Deno.writeTextFile(source, `.intel_syntax noprefix\n.text\n${text}\n`);
    await run("as", "--64", "-o", object, source);
    await run("objcopy", "-O", "binary", "-j", ".text", object, binary);
    bytes = await Deno.readFile(binary);
  });
  return bytes;
}

const there = async (command: string) => {
  try {
    return (await new Deno.Command(command, { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
};
const binutils = Deno.build.arch === "x86_64" && await there("as") && await there("objcopy");
if (!binutils) console.log("native encoder: skipped, because it needs GNU as and objcopy (binutils)");

Deno.test({
  name: "native encoder: every instruction has the bytes that GNU as gives it",
  ignore: !binutils,
  async fn() {
    const all = [...instructions()],
      x = new Assembler(),
      ends = all.map(([, emit]) => {
        emit(x);
        return x.length;
      });
    const expected = (await gnu(all.map(([text]) => text).join("\n")))!, actual = x.bytes;
    all.forEach(([text], i) => {
      const [begin, end] = [ends[i - 1] ?? 0, ends[i]];
      assertEquals(actual.subarray(begin, end).toHex(), expected.subarray(begin, end).toHex(), text);
    });
    assertEquals(actual.length, expected.length);
  },
});

Deno.test("native encoder: a jump to a label that is never placed is rejected", () => {
  const x = new Assembler();
  x.jump(new Label());
  assertThrows(() => x.bytes, TypeError, "a label was never placed");
});
