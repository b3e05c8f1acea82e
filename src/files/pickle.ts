/**
 * Reads pickles as data. It supports what Python's pickle module writes with protocols 2 to 5 for tensors, settings and
 * vocabularies (https://github.com/python/cpython/blob/main/Lib/pickletools.py describes the opcodes).
 *
 * A pickle is a program for a stack machine, and in Python it can import and call anything. Here it can use only names
 * that the caller allows, and each of them stands for a function of ours. So no code from the pickle is ever executed,
 * and a name that is not allowed is an error. Everything is limited: lengths by the size of the file, nesting and the
 * number of values by counting, because a few bytes can describe nested lists that fill any memory.
 *
 * In JavaScript, None is null; an int is a number, or a bigint if a number would not be exact; a float is a number; a
 * str is a string; bytes are a Uint8Array; a list is an array and a tuple a frozen array; a dict or OrderedDict is a
 * Map; a set is a Set. Not supported: protocols 0 and 1, and instances of classes. Attributes set on a dict are ignored
 * (PyTorch sets some on a state dict; loading does not need them).
 */
import { CheckpointError } from "../errors.ts";
import { Machine, Refusal } from "./pickle_machine.ts";
import { PickleGlobal, type PickleOptions, type PickleValue } from "./pickle_values.ts";

/**
 * Largest depth of nesting, and largest number of values: far more than a checkpoint has, and small enough to be read
 * quickly.
 */
const MAX_DEPTH = 64, MAX_VALUES = 1_000_000;

/** Names of Python's `collections` and `builtins` (`__builtin__` in protocol 2) that are always allowed. */
const ALWAYS: readonly PickleGlobal[] = [
  new PickleGlobal("collections.OrderedDict", (args) => {
    if (args.length > 0) throw new CheckpointError("OrderedDict is called with arguments");
    return new Map();
  }),
  ...["builtins", "__builtin__"].flatMap((module) =>
    ["set", "frozenset"].map((name) =>
      new PickleGlobal(`${module}.${name}`, ([list = []]) => {
        if (!Array.isArray(list)) throw new CheckpointError(`${name} is called with an argument that is not a list`);
        return new Set(list);
      })
    )
  ),
];

/**
 * Reads the value of a pickle.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { readPickle } from "./pickle.ts";
 * import { writePickle } from "./pickle_writer.ts";
 *
 * const bytes = writePickle({ shape: "2 × 3", name: "wte" });
 * assertEquals(readPickle(bytes, { where: "memory" }), new Map([["shape", "2 × 3"], ["name", "wte"]]));
 * ```
 * @throws {CheckpointError} when the pickle is damaged, too large, not of protocols 2 to 5, or uses a name that is not
 * allowed
 */
export function readPickle(bytes: Uint8Array, { where, globals = [], persistentLoad }: PickleOptions): PickleValue {
  const allowed = new Map([...ALWAYS, ...globals].map((global) => [global.name, global]));
  try {
    const value = new Machine(bytes, allowed, persistentLoad).run();
    new Bounds().check(value, 0);
    return value;
  } catch (error) {
    if (error instanceof Refusal) throw new CheckpointError(`${where} ${error.message}`);
    if (error instanceof CheckpointError) throw new CheckpointError(`${where} is damaged: ${error.message}`);
    throw error;
  }
}

/** Counts values, following every reference, so that a value that is referenced twice counts twice. */
class Bounds {
  #count = 0;
  check(value: PickleValue, depth: number): void {
    if (++this.#count > MAX_VALUES) throw new CheckpointError(`it holds more than ${MAX_VALUES} values`);
    if (depth > MAX_DEPTH) throw new CheckpointError(`values are nested more than ${MAX_DEPTH} deep`);
    if (Array.isArray(value) || value instanceof Set || value instanceof Map) {
      for (const item of value.values()) this.check(item as PickleValue, depth + 1);
    }
  }
}
