/**
 * Pickles, read as data: what Python's pickle module writes with protocols 2 to 5, as far as tensors, settings and
 * vocabularies need it (https://github.com/python/cpython/blob/main/Lib/pickletools.py describes the opcodes).
 *
 * A pickle is a program for a machine with a stack, and in Python it may import and call anything. Here it may name only what
 * its reader's caller allows, each name standing for a function of ours, so whatever a pickle says, nothing of it is executed;
 * a name that is not allowed is refused where it appears. Everything is bounded: lengths by the bytes that are there, nesting
 * and size by counting, since a few bytes can describe a list of lists of … that no memory holds.
 *
 * In JavaScript: None is null; int a number, or a bigint where a number is not exact; float a number; str a string; bytes a
 * Uint8Array; list an array, tuple a frozen one; dict and OrderedDict a Map; set a Set. Left out: protocols 0 and 1, objects
 * of classes, and attributes set on a dict (PyTorch sets some on a state dict, which say nothing that loading needs).
 */
import { CheckpointError } from "../errors.ts";
import { Machine, Refusal } from "./pickle_machine.ts";
import { PickleGlobal, type PickleOptions, type PickleValue } from "./pickle_values.ts";

/** Values within values, at the most: far more than a checkpoint has, far less than what does not come back. */
const MAX_DEPTH = 64, MAX_VALUES = 1_000_000;

/** What Python's `collections` and `builtins` (`__builtin__` in protocol 2) have that may be named. */
const ALWAYS: readonly PickleGlobal[] = [
  new PickleGlobal("collections.OrderedDict", (args) => {
    if (args.length > 0) throw new CheckpointError("OrderedDict is called with arguments");
    return new Map();
  }),
  ...["builtins", "__builtin__"].flatMap((module) =>
    ["set", "frozenset"].map((name) =>
      new PickleGlobal(`${module}.${name}`, ([list = []]) => {
        if (!Array.isArray(list)) throw new CheckpointError(`${name} is called with something else than a list`);
        return new Set(list);
      })
    )
  ),
];

/**
 * The value of a pickle.
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
 * @throws {CheckpointError} when it is damaged, too large, not of protocols 2 to 5, or names what it may not
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

/** Counts values as a reader that follows every reference meets them. */
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
