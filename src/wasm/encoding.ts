/** The parts of WebAssembly's binary format (https://webassembly.github.io/spec/core/binary/) that kernels need. */

export const codes = { i32: 0x7f, f32: 0x7d, f64: 0x7c, v128: 0x7b };
export type Type = keyof typeof codes;

/** A memory's size in pages of 64 KiB. */
export interface Pages {
  readonly initial: number;
  readonly maximum: number;
  readonly shared: boolean;
}

/** Unsigned LEB128. */
export function leb(n: number): number[] {
  if (n >= 0 && n < 128) return [n];
  if (n < 0) throw new RangeError(`${n} is negative`);
  const bytes = [];
  for (; n > 127; n >>>= 7) bytes.push((n & 127) | 128);
  bytes.push(n);
  return bytes;
}

export function signedLeb(n: number): number[] {
  const bytes = [];
  for (;;) {
    const byte = n & 127;
    n >>= 7;
    if ((n === 0 && !(byte & 64)) || (n === -1 && byte & 64)) return [...bytes, byte];
    bytes.push(byte | 128);
  }
}

/** The opcode of a vector instruction, with the prefix of all vector instructions. */
export const simd = (opcode: number): number[] =>
  opcode < 128 ? [0xfd, opcode] : [0xfd, (opcode & 127) | 128, opcode >>> 7];
export const bytesOfF32 = (value: number): number[] => [...new Uint8Array(new Float32Array([value]).buffer)];
export const bytesOfF64 = (value: number): number[] => [...new Uint8Array(new Float64Array([value]).buffer)];

/**
 * The bytes of a module that imports `env.memory`, `env.scratch` and, if `native`, the function `env.native`, and that
 * exports the first of `functions` as `run`.
 */
export function moduleBytes(
  functions: readonly { parameters: number[]; body: number[] }[],
  { initial, maximum, shared }: Pages,
  native: boolean,
): Uint8Array<ArrayBuffer> {
  // Uses `concat`, which is built in, rather than spreading: it is faster as long as V8 has not optimized this code,
  // which is when a process writes its first modules.
  const list = (items: number[][]) => leb(items.length).concat(...items);
  const section = (id: number, items: number[][]) => {
    const content = list(items);
    return [id].concat(leb(content.length), content);
  };
  const text = (s: string) => list([...new TextEncoder().encode(s)].map((byte) => [byte]));
  const types = functions.map(({ parameters }) => [0x60, ...list(parameters.map((code) => [code])), 0]);
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0].concat(
    section(1, [...types, [0x60, 0, 0]]), // the last is the type of env.native
    section(2, [
      [...text("env"), ...text("memory"), 2, shared ? 3 : 1, ...leb(initial), ...leb(maximum)],
      [...text("env"), ...text("scratch"), 3, codes.i32, 0],
      ...(native ? [[...text("env"), ...text("native"), 0, ...leb(types.length)]] : []),
    ]),
    section(3, functions.map((_, i) => leb(i))),
    section(7, [[...text("run"), 0, native ? 1 : 0]]),
    section(10, functions.map(({ body }) => leb(body.length).concat(body))),
  ));
}
