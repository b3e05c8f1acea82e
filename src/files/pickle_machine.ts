/** The stack machine that runs a pickle. See pickle.ts. */
import { CheckpointError } from "../errors.ts";
import { PickleGlobal, type PickleOptions, type PickleValue } from "./pickle_values.ts";
import { shown } from "./shown.ts";

/** The maximum number of opcodes: an opcode of one or two bytes can create a value that takes a hundred times as much. */
const MAX_STEPS = 2_000_000;
/** The maximum number of bytes in an int. */
const MAX_INT = 128;

/** Thrown when a pickle is not damaged, but uses a name that is not allowed. */
export class Refusal extends Error {}

const damage = (why: string): CheckpointError => new CheckpointError(why);

/** Runs one pickle. */
export class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #globals: ReadonlyMap<string, PickleGlobal>;
  readonly #persistentLoad: PickleOptions["persistentLoad"];
  readonly #memo = new Map<number, PickleValue>();
  /** For each open mark, the part of the stack that is below it. */
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
    if (this.#u8() !== 0x80) throw damage("it is not a pickle of protocol 2 or later");
    const protocol = this.#u8();
    if (protocol < 2 || protocol > 5) throw damage(`it is a pickle of protocol ${protocol}, not 2 to 5`);
    let steps = 0;
    for (let opcode = this.#u8(); opcode !== 0x2e; opcode = this.#u8()) {
      if (++steps > MAX_STEPS) throw damage(`its program has more than ${MAX_STEPS} steps`);
      this.#step(opcode);
    }
    const value = this.#pop();
    if (this.#stack.length + this.#below.length > 0) throw damage("its program ends with values left over");
    if (this.#at < this.#bytes.length) throw damage(`${this.#bytes.length - this.#at} bytes follow its end`);
    return value;
  }

  #step(opcode: number): void {
    const step = Machine.#steps.get(opcode);
    if (!step) throw damage(`opcode 0x${opcode.toString(16)} at ${this.#at - 1} is not supported`);
    step(this);
  }

  /** The implementation of each opcode. The comments are the opcodes' names in pickletools. */
  static readonly #steps = new Map<number, (machine: Machine) => void>([
    // Marks and the stack
    [0x28, (m) => m.#mark()], // MARK
    [0x30, (m) => m.#stack.length > 0 ? m.#pop() : m.#items()], // POP
    [0x31, (m) => m.#items()], // POP_MARK
    [0x32, (m) => m.#push(m.#top())], // DUP
    // Constants and numbers
    [0x4e, (m) => m.#push(null)], // NONE
    [0x88, (m) => m.#push(true)], // NEWTRUE
    [0x89, (m) => m.#push(false)], // NEWFALSE
    [0x4a, (m) => m.#push(m.#view.getInt32(m.#skip(4), true))], // BININT
    [0x4b, (m) => m.#push(m.#u8())], // BININT1
    [0x4d, (m) => m.#push(m.#view.getUint16(m.#skip(2), true))], // BININT2
    [0x8a, (m) => m.#push(m.#int(m.#u8()))], // LONG1
    [0x8b, (m) => m.#push(m.#int(m.#u32()))], // LONG4
    [0x47, (m) => m.#push(m.#view.getFloat64(m.#skip(8), false))], // BINFLOAT
    // Text and bytes
    [0x8c, (m) => m.#push(m.#text(m.#u8()))], // SHORT_BINUNICODE
    [0x58, (m) => m.#push(m.#text(m.#u32()))], // BINUNICODE
    [0x8d, (m) => m.#push(m.#text(m.#u64()))], // BINUNICODE8
    [0x43, (m) => m.#push(m.#take(m.#u8()).slice())], // SHORT_BINBYTES
    [0x42, (m) => m.#push(m.#take(m.#u32()).slice())], // BINBYTES
    [0x8e, (m) => m.#push(m.#take(m.#u64()).slice())], // BINBYTES8
    [0x96, (m) => m.#push(m.#take(m.#u64()).slice())], // BYTEARRAY8
    // Tuples, lists, dicts and sets
    [0x29, (m) => m.#push(Object.freeze([]))], // EMPTY_TUPLE
    [0x85, (m) => m.#tuple(1)], // TUPLE1
    [0x86, (m) => m.#tuple(2)], // TUPLE2
    [0x87, (m) => m.#tuple(3)], // TUPLE3
    [0x74, (m) => m.#collect((items) => Object.freeze(items))], // TUPLE
    [0x5d, (m) => m.#push([])], // EMPTY_LIST
    [0x6c, (m) => m.#collect((items) => items)], // LIST
    [0x61, (m) => m.#append([m.#pop()])], // APPEND
    [0x65, (m) => m.#append(m.#items())], // APPENDS
    [0x7d, (m) => m.#push(new Map())], // EMPTY_DICT
    [0x64, (m) => m.#dict()], // DICT
    [0x73, (m) => m.#setItem()], // SETITEM
    [0x75, (m) => m.#set(m.#items())], // SETITEMS
    [0x8f, (m) => m.#push(new Set())], // EMPTY_SET
    [0x90, (m) => m.#add(m.#items())], // ADDITEMS
    [0x91, (m) => m.#collect((items) => new Set(items))], // FROZENSET
    // The memo
    [0x71, (m) => m.#memo.set(m.#u8(), m.#top())], // BINPUT
    [0x72, (m) => m.#memo.set(m.#u32(), m.#top())], // LONG_BINPUT
    [0x94, (m) => m.#memo.set(m.#memo.size, m.#top())], // MEMOIZE
    [0x68, (m) => m.#recall(m.#u8())], // BINGET
    [0x6a, (m) => m.#recall(m.#u32())], // LONG_BINGET
    // Names and calls
    [0x63, (m) => m.#name(m.#line(), m.#line())], // GLOBAL
    [0x93, (m) => m.#stackName()], // STACK_GLOBAL
    [0x52, (m) => m.#call()], // REDUCE
    [0x81, (m) => m.#call()], // NEWOBJ
    [0x62, (m) => m.#build()], // BUILD
    [0x51, (m) => m.#persistent()], // BINPERSID
    [0x95, (m) => m.#u64()], // FRAME: a hint for reading ahead
  ]);

  #push(value: PickleValue): void {
    this.#stack.push(value);
  }
  #mark(): void {
    this.#below.push(this.#stack);
    this.#stack = [];
  }
  #tuple(count: number): void {
    if (this.#stack.length < count) throw damage("its program takes a value that is not there");
    this.#push(Object.freeze(this.#stack.splice(-count)));
  }
  #collect(make: (items: PickleValue[]) => PickleValue): void {
    const items = this.#items();
    this.#push(make(items));
  }
  #dict(): void {
    const items = this.#items();
    this.#push(new Map());
    this.#set(items);
  }
  #setItem(): void {
    const value = this.#pop(), key = this.#pop();
    this.#set([key, value]);
  }
  #add(items: readonly PickleValue[]): void {
    const set = this.#top();
    if (!(set instanceof Set)) throw damage("it adds to a value that is not a set");
    for (const item of items) set.add(item);
  }
  #stackName(): void {
    const name = this.#pop(), module = this.#pop();
    if (typeof module === "string" && typeof name === "string") return this.#name(module, name);
    throw damage("a name in it is not a text");
  }
  #build(): void {
    this.#pop();
    if (!(this.#top() instanceof Map)) throw damage("it sets attributes of a value that is not a dict");
  }
  #persistent(): void {
    if (!this.#persistentLoad) throw damage("it refers to a value outside of the pickle");
    this.#push(this.#persistentLoad(this.#pop()));
  }

  /** Removes the last mark and the values above it, and returns these values. */
  #items(): PickleValue[] {
    const items = this.#stack, below = this.#below.pop();
    if (!below) throw damage("its program looks for a mark that is not there");
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
    if (value === undefined) throw damage("its program takes a value that is not there");
    return value;
  }

  #append(items: readonly PickleValue[]): void {
    const list = this.#top();
    if (!Array.isArray(list) || Object.isFrozen(list)) throw damage("it appends to a value that is not a list");
    for (const item of items) list.push(item);
  }
  #set(items: readonly PickleValue[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) throw damage("it sets an item of a value that is not a dict");
    if (items.length % 2 !== 0) throw damage("it sets a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key === "object" && key !== null) throw damage("a key of a dict is neither text nor a number");
      dict.set(key, items[i + 1]);
    }
  }
  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw damage(`it recalls value ${index}, which was not saved`);
    this.#stack.push(value);
  }

  #name(module: string, name: string): void {
    const global = this.#globals.get(`${module}.${name}`);
    if (global) return void this.#stack.push(global);
    throw new Refusal(
      `uses ${shown(`${module}.${name}`)}, which is not allowed; no code from the file was executed`,
    );
  }
  #call(): void {
    const args = this.#pop(), callee = this.#pop();
    if (!(callee instanceof PickleGlobal) || !callee.call) throw damage("it calls a value that is not a function");
    if (!Array.isArray(args) || !Object.isFrozen(args)) throw damage(`${callee.name} is called without a tuple`);
    this.#stack.push(callee.call(args));
  }

  #int(length: number): number | bigint {
    if (length > MAX_INT) throw damage(`an int has ${length} bytes`);
    const bytes = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[i]);
    value = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }
  #text(length: number): string {
    const bytes = this.#take(length);
    try {
      // A byte-order mark is part of the text.
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw damage("a text is not UTF-8");
    }
  }
  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw damage("it is truncated");
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
  /** Skips `length` bytes. @returns the position of the first skipped byte */
  #skip(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw damage("it is truncated");
    this.#at += length;
    return at;
  }
}
