/**
 * Writes pickles with protocol 2, which every version of Python 3 and PyTorch reads. pickle.ts lists the types in
 * JavaScript. A whole number is written as an int, unless it is a {@linkcode PickleFloat}.
 */

/** A number that is written as a float, even if it is a whole number. */
export class PickleFloat {
  /** Wraps a number. */ constructor(readonly value: number) {}
}
/** A reference to an object of a Python module, such as `torch.FloatStorage`. */
export class PickleName {
  /** @internal */ constructor(readonly module: string, readonly name: string) {}
}
/** A call of a named function. */
export class PickleCall {
  /** @internal */ constructor(readonly callee: PickleName, readonly args: readonly PickleInput[]) {}
}
/** A reference to an object outside of the pickle, such as a storage. */
export class PicklePersistent {
  /** @internal */ constructor(readonly id: readonly PickleInput[]) {}
}

/** A value that can be written. A frozen array becomes a tuple; a Map or an object becomes a dict. */
export type PickleInput =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly PickleInput[]
  | ReadonlyMap<string | number | bigint | boolean | null, PickleInput>
  | { readonly [key: string]: PickleInput }
  | PickleFloat
  | PickleName
  | PickleCall
  | PicklePersistent;

/** Writes a value as a pickle. @throws {TypeError} when the value, or a value inside it, cannot be written */
export function writePickle(value: PickleInput): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  writer.op(0x80, 2);
  writer.value(value);
  writer.op(0x2e);
  return writer.bytes();
}

class Writer {
  #bytes = new Uint8Array(1024);
  #length = 0;

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }
  op(...bytes: number[]): void {
    this.#put(bytes);
  }

  value(value: PickleInput): void {
    if (value === null) this.op(0x4e); // NONE
    else if (typeof value === "boolean") this.op(value ? 0x88 : 0x89); // NEWTRUE, NEWFALSE
    else if (typeof value === "string") this.#text(value);
    else if (typeof value === "bigint") this.#int(value);
    else if (typeof value === "number") {
      if (Number.isSafeInteger(value) && !Object.is(value, -0)) this.#int(BigInt(value));
      else this.#float(value);
    } else if (value instanceof PickleFloat) this.#float(value.value);
    else if (value instanceof PickleName) this.#name(value);
    else if (value instanceof PickleCall) {
      this.#name(value.callee);
      this.#tuple(value.args);
      this.op(0x52); // REDUCE
    } else if (value instanceof PicklePersistent) {
      this.#tuple(value.id);
      this.op(0x51); // BINPERSID
    } else if (Array.isArray(value)) {
      if (Object.isFrozen(value)) return this.#tuple(value);
      this.op(0x5d, 0x28); // EMPTY_LIST, MARK
      for (const item of value) this.value(item);
      this.op(0x65); // APPENDS
    } else if (typeof value === "object") {
      this.op(0x7d, 0x28); // EMPTY_DICT, MARK
      for (const [key, item] of value instanceof Map ? value : Object.entries(value)) {
        this.value(key);
        this.value(item);
      }
      this.op(0x75); // SETITEMS
    } else throw new TypeError(`${typeof value} cannot be pickled`);
  }

  #tuple(items: readonly PickleInput[]): void {
    this.op(0x28); // MARK
    for (const item of items) this.value(item);
    this.op(0x74); // TUPLE
  }
  #name({ module, name }: PickleName): void {
    this.op(0x63); // GLOBAL
    this.#put(new TextEncoder().encode(`${module}\n${name}\n`));
  }
  #int(value: bigint): void {
    if (BigInt.asIntN(32, value) === value) {
      const bytes = new DataView(new ArrayBuffer(5));
      bytes.setUint8(0, 0x4a); // BININT
      bytes.setInt32(1, Number(value), true);
      return this.#put(new Uint8Array(bytes.buffer));
    }
    let length = 5;
    while (BigInt.asIntN(8 * length, value) !== value) length++;
    this.op(0x8a, length); // LONG1
    for (let i = 0; i < length; i++) this.op(Number(value >> BigInt(8 * i) & 0xffn));
  }
  #float(value: number): void {
    const bytes = new DataView(new ArrayBuffer(9));
    bytes.setUint8(0, 0x47); // BINFLOAT
    bytes.setFloat64(1, value, false);
    this.#put(new Uint8Array(bytes.buffer));
  }
  #text(text: string): void {
    if (!text.isWellFormed()) throw new TypeError(`${JSON.stringify(text)} has half a character`);
    const bytes = new TextEncoder().encode(text), length = new DataView(new ArrayBuffer(4));
    length.setUint32(0, bytes.length, true);
    this.op(0x58); // BINUNICODE
    this.#put(new Uint8Array(length.buffer));
    this.#put(bytes);
  }

  #put(bytes: ArrayLike<number>): void {
    const end = this.#length + bytes.length;
    if (end > this.#bytes.length) {
      const longer = new Uint8Array(2 * end);
      longer.set(this.#bytes);
      this.#bytes = longer;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
  }
}
