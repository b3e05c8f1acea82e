/**
 * Reads pickles as data. It supports the opcodes that Python's pickle module writes with protocols 2 to 5 for tensors,
 * settings and vocabularies (https://github.com/python/cpython/blob/main/Lib/pickletools.py describes the opcodes).
 *
 * A pickle is a program for a stack machine, and in Python it can import and call anything. Here it can use only the
 * names that the caller allows, and each name stands for a function that the caller provides. So no code from the pickle
 * is ever executed, and a name that is not allowed is an error. Lengths are limited by the size of the file. Nesting and
 * the number of values have limits of their own, because a few bytes can describe nested lists that fill any memory.
 *
 * In JavaScript, None is null; an int is a number, or a bigint if a number would not be exact; a float is a number; a
 * str is a string; bytes are a Uint8Array; a list is an array and a tuple a frozen array; a dict or OrderedDict is a
 * Map; a set is a Set. Not supported: protocols 0 and 1, and instances of classes. Attributes of a dict are ignored.
 * (PyTorch adds attributes to a state dict, but loading does not need them.)
 */
import { CheckpointError } from "../errors.ts";
import { Machine, Refusal } from "./pickle_machine.ts";
import { PickleGlobal, type PickleOptions, type PickleValue } from "./pickle_values.ts";

/**
 * The maximum depth of nesting, and the maximum number of values. A checkpoint has far fewer values, and a pickle at
 * these limits is still read quickly.
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

/** Counts values by following every reference: a value that is referenced twice is counted twice. */
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
