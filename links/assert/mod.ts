export function assert(c: unknown, m = ""): asserts c { if (!c) throw new Error(m); }
