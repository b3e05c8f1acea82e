/**
 * Whether two values are equal in every part: objects by class and own properties, maps and sets by content, dates by
 * time, regular expressions and URLs by text. Values that contain themselves are fine.
 */
export function equal(a: unknown, b: unknown): boolean {
  return compare(a, b, new Map());
}

function compare(a: unknown, b: unknown, seen: Map<object, unknown>): boolean {
  if (Object.is(a, b) || a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (classOf(a) !== classOf(b)) return false;
  if (a instanceof Date) return Object.is(a.getTime(), (b as Date).getTime());
  if (a instanceof RegExp || a instanceof URL) return String(a) === String(b);
  if (a instanceof WeakMap || a instanceof WeakSet) throw new TypeError(`cannot compare ${classOf(a).name} instances`);
  // Weights are long, and their indices would become strings below.
  if (ArrayBuffer.isView(a) && !(a instanceof DataView)) {
    const [x, y] = [a, b] as ArrayLike<unknown>[];
    return x.length === y.length &&
      Array.prototype.every.call(x, (value, i) => Object.is(value, y[i]) || value === y[i]);
  }
  // A pair that is being compared already is equal as far as this path is concerned.
  if (seen.get(a) === b) return true;
  seen.set(a, b);
  if (a instanceof Set) return sameEntries([...a].map((x) => [x, x]), [...b as Set<unknown>].map((x) => [x, x]), seen);
  if (a instanceof Map) return sameEntries([...a], [...b as Map<unknown, unknown>], seen);
  const keys = ownKeys(a);
  return keys.length === ownKeys(b).length &&
    keys.every((key) => key in b && compare(a[key as keyof typeof a], b[key as keyof typeof b], seen));
}

/** In any order: each entry of `a` takes one of `b` that no other has taken. */
function sameEntries(a: [unknown, unknown][], b: [unknown, unknown][], seen: Map<object, unknown>): boolean {
  return a.length === b.length && a.every(([key, value]) => {
    const at = b.findIndex((entry) => compare(key, entry[0], new Map(seen)) && compare(value, entry[1], new Map(seen)));
    if (at >= 0) b.splice(at, 1);
    return at >= 0;
  });
}

/** An object without a prototype compares as a plain one. */
function classOf(value: object): { name: string } {
  return value.constructor ?? Object;
}

function ownKeys(value: object): (string | symbol)[] {
  return Reflect.ownKeys(value).filter((key) => Object.prototype.propertyIsEnumerable.call(value, key));
}
