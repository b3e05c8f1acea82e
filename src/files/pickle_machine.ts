/** The machine that a pickle is a program for. See pickle.ts. */
import { CheckpointError } from "../errors.ts";
import type { PickleOptions } from "./pickle.ts";
import { PickleGlobal, type PickleValue } from "./pickle_values.ts";
import { shown } from "./shown.ts";

/** Opcodes: each may make a value, of a byte or two in the file and a hundred times as many in memory. */
const MAX_STEPS = 2_000_000;
/** Bytes of an int. */
const MAX_INT = 128;

/** Not damaged, but not wanted. */
export class Refusal extends Error {}

/** Runs one pickle. */
export class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #globals: ReadonlyMap<string, PickleGlobal>;
  readonly #persistentLoad: PickleOptions["persistentLoad"];
  readonly #memo = new Map<number, PickleValue>();
  /** What stood below each mark that is open. */
  readonly #below: PickleValue[][] = [];
  #stack: PickleValue[] = [];
  #at = 0;

  constructor(
    bytes: Uint8Array,
    globals: ReadonlyMap<string, PickleGlobal>,
    persistentLoad: PickleOptions["persistentLoad"],
  ) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#globals = globals;
    this.#persistentLoad = persistentLoad;
  }

  run(): PickleValue {
    if (this.#u8() !== 0x80) throw new CheckpointError("it is no pickle of protocol 2 or later");
    const protocol = this.#u8();
    if (protocol < 2 || protocol > 5) throw new CheckpointError(`it is a pickle of protocol ${protocol}, not 2 to 5`);
    let steps = 0;
    for (let opcode = this.#u8(); opcode !== 0x2e; opcode = this.#u8()) {
      if (++steps > MAX_STEPS) throw new CheckpointError(`its program has more than ${MAX_STEPS} steps`);
      this.#step(opcode);
    }
    const value = this.#pop();
    if (this.#stack.length + this.#below.length > 0) {
      throw new CheckpointError("its program ends with values left over");
    }
    if (this.#at < this.#bytes.length) {
      throw new CheckpointError(`${this.#bytes.length - this.#at} bytes follow its end`);
    }
    return value;
  }

  #step(opcode: number): void {
    const stack = this.#stack;
    switch (opcode) {
      case 0x28: // MARK
        this.#below.push(stack);
        this.#stack = [];
        return;
      case 0x30: // POP
        return void (stack.length > 0 ? this.#pop() : this.#items());
      case 0x31: // POP_MARK
        return void this.#items();
      case 0x32: // DUP
        return void stack.push(this.#top());
      case 0x4e: // NONE
        return void stack.push(null);
      case 0x88: // NEWTRUE
        return void stack.push(true);
      case 0x89: // NEWFALSE
        return void stack.push(false);
      case 0x4a: // BININT
        return void stack.push(this.#view.getInt32(this.#skip(4), true));
      case 0x4b: // BININT1
        return void stack.push(this.#u8());
      case 0x4d: // BININT2
        return void stack.push(this.#view.getUint16(this.#skip(2), true));
      case 0x8a: // LONG1
        return void stack.push(this.#int(this.#u8()));
      case 0x8b: // LONG4
        return void stack.push(this.#int(this.#u32()));
      case 0x47: // BINFLOAT
        return void stack.push(this.#view.getFloat64(this.#skip(8), false));
      case 0x8c: // SHORT_BINUNICODE
        return void stack.push(this.#text(this.#u8()));
      case 0x58: // BINUNICODE
        return void stack.push(this.#text(this.#u32()));
      case 0x8d: // BINUNICODE8
        return void stack.push(this.#text(this.#u64()));
      case 0x43: // SHORT_BINBYTES
        return void stack.push(this.#take(this.#u8()).slice());
      case 0x42: // BINBYTES
        return void stack.push(this.#take(this.#u32()).slice());
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return void stack.push(this.#take(this.#u64()).slice());
      case 0x29: // EMPTY_TUPLE
        return void stack.push(Object.freeze([]));
      case 0x85: // TUPLE1, TUPLE2, TUPLE3
      case 0x86:
      case 0x87: {
        const count = opcode - 0x84;
        if (stack.length < count) throw new CheckpointError("its program takes a value that is not there");
        return void stack.push(Object.freeze(stack.splice(-count)));
      }
      case 0x74: { // TUPLE
        const items = this.#items();
        return void this.#stack.push(Object.freeze(items));
      }
      case 0x5d: // EMPTY_LIST
        return void stack.push([]);
      case 0x6c: { // LIST
        const items = this.#items();
        return void this.#stack.push(items);
      }
      case 0x61: // APPEND
        return this.#append([this.#pop()]);
      case 0x65: // APPENDS
        return this.#append(this.#items());
      case 0x7d: // EMPTY_DICT
        return void stack.push(new Map());
      case 0x64: { // DICT
        const items = this.#items();
        this.#stack.push(new Map());
        return this.#set(items);
      }
      case 0x73: { // SETITEM
        const value = this.#pop(), key = this.#pop();
        return this.#set([key, value]);
      }
      case 0x75: // SETITEMS
        return this.#set(this.#items());
      case 0x8f: // EMPTY_SET
        return void stack.push(new Set());
      case 0x90: { // ADDITEMS
        const items = this.#items(), set = this.#top();
        if (!(set instanceof Set)) throw new CheckpointError("it adds to something that is no set");
        return items.forEach((item) => set.add(item));
      }
      case 0x91: { // FROZENSET
        const items = this.#items();
        return void this.#stack.push(new Set(items));
      }
      case 0x71: // BINPUT
        return void this.#memo.set(this.#u8(), this.#top());
      case 0x72: // LONG_BINPUT
        return void this.#memo.set(this.#u32(), this.#top());
      case 0x94: // MEMOIZE
        return void this.#memo.set(this.#memo.size, this.#top());
      case 0x68: // BINGET
        return this.#recall(this.#u8());
      case 0x6a: // LONG_BINGET
        return this.#recall(this.#u32());
      case 0x63: // GLOBAL
        return this.#name(this.#line(), this.#line());
      case 0x93: { // STACK_GLOBAL
        const name = this.#pop(), module = this.#pop();
        if (typeof module === "string" && typeof name === "string") return this.#name(module, name);
        throw new CheckpointError("it names something by what is no text");
      }
      case 0x52: // REDUCE
      case 0x81: // NEWOBJ
        return this.#call();
      case 0x62: // BUILD
        this.#pop();
        if (this.#top() instanceof Map) return;
        throw new CheckpointError("it sets attributes of something that is no dict");
      case 0x51: // BINPERSID
        if (!this.#persistentLoad) throw new CheckpointError("it refers to something outside of it");
        return void stack.push(this.#persistentLoad(this.#pop()));
      case 0x95: // FRAME: a hint for reading ahead
        return void this.#u64();
      default:
        throw new CheckpointError(`opcode 0x${opcode.toString(16)} at ${this.#at - 1} is none that data needs`);
    }
  }

  /** What stands above the last mark, which goes. */
  #items(): PickleValue[] {
    const items = this.#stack, below = this.#below.pop();
    if (!below) throw new CheckpointError("its program looks for a mark that is not there");
    this.#stack = below;
    return items;
  }
  #pop(): PickleValue {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }
  #top(): PickleValue {
    const value = this.#stack.at(-1);
    if (value === undefined) throw new CheckpointError("its program takes a value that is not there");
    return value;
  }

  #append(items: readonly PickleValue[]): void {
    const list = this.#top();
    if (!Array.isArray(list) || Object.isFrozen(list)) {
      throw new CheckpointError("it appends to something that is no list");
    }
    for (const item of items) list.push(item);
  }
  #set(items: readonly PickleValue[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) throw new CheckpointError("it sets an item of something that is no dict");
    if (items.length % 2 !== 0) throw new CheckpointError("it sets a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key === "object" && key !== null) {
        throw new CheckpointError("a key of a dict is neither text nor a number");
      }
      dict.set(key, items[i + 1]);
    }
  }
  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw new CheckpointError(`it recalls value ${index}, which it has not kept`);
    this.#stack.push(value);
  }

  #name(module: string, name: string): void {
    const global = this.#globals.get(`${module}.${name}`);
    if (global) return void this.#stack.push(global);
    throw new Refusal(
      `asks for ${shown(`${module}.${name}`)}, which no data needs: it is refused, and nothing of it was run`,
    );
  }
  #call(): void {
    const args = this.#pop(), callee = this.#pop();
    if (!(callee instanceof PickleGlobal) || !callee.call) {
      throw new CheckpointError("it calls what is nothing to call");
    }
    if (!Array.isArray(args) || !Object.isFrozen(args)) {
      throw new CheckpointError(`${callee.name} is called without a tuple`);
    }
    this.#stack.push(callee.call(args));
  }

  #int(length: number): number | bigint {
    if (length > MAX_INT) throw new CheckpointError(`an int has ${length} bytes`);
    const bytes = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[i]);
    value = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }
  #text(length: number): string {
    const bytes = this.#take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); // a byte order mark is text here
    } catch {
      throw new CheckpointError("a text is not UTF-8");
    }
  }
  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new CheckpointError("it is truncated");
    const text = this.#text(end - this.#at);
    this.#at++;
    return text;
  }
  #u8(): number {
    return this.#bytes[this.#skip(1)];
  }
  #u32(): number {
    return this.#view.getUint32(this.#skip(4), true);
  }
  #u64(): number {
    return Number(this.#view.getBigUint64(this.#skip(8), true));
  }
  #take(length: number): Uint8Array {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }
  /** Goes past so many bytes, and says where they begin. */
  #skip(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new CheckpointError("it is truncated");
    this.#at += length;
    return at;
  }
}
