/**
 * A stand-in for `jsr:@std/assert` where JSR cannot be reached: the assertions that this repository uses, with the same
 * signatures and the same verdicts. Messages show both values whole instead of a coloured difference.
 *
 * @module
 */
import { equal } from "./equal.ts";
export { equal };

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** What a failed assertion throws. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Fails unless both are equal in every part; NaN equals NaN, and -0 equals 0. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) return;
  throw new AssertionError(
    `Values are not equal${suffix(msg)}\n  actual:   ${show(actual)}\n  expected: ${show(expected)}`,
  );
}

/** Fails if both are equal in every part. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) return;
  throw new AssertionError(`Expected actual: ${show(actual)} not to be: ${show(expected)}${suffix(msg)}`);
}

/** Fails unless two numbers differ by at most `tolerance`, which is 1e-7 of the expected value where it is left out. */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  tolerance ??= Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7;
  const delta = Math.abs(expected - actual);
  if (Object.is(actual, expected) || delta <= tolerance) return;
  throw new AssertionError(
    `Expected actual: "${actual}" to be close to "${expected}": ` +
      `delta "${delta}" is greater than "${tolerance}"${suffix(msg)}`,
  );
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (actual.includes(expected)) return;
  throw new AssertionError(`Expected actual: "${actual}" to contain: "${expected}"${suffix(msg)}`);
}

/** Fails unless `actual` matches `expected`. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) return;
  throw new AssertionError(`Expected actual: "${actual}" to match: "${expected}"${suffix(msg)}`);
}

/** Fails unless `error` is an error of `errorClass` whose message includes or matches `msgMatches`. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  errorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) throw new AssertionError(`Expected "error" to be an Error object${suffix(msg)}`);
  if (errorClass && !(error instanceof errorClass)) {
    throw new AssertionError(
      `Expected error to be instance of "${errorClass.name}", but was "${error.constructor.name}" ` +
        `(${JSON.stringify(error.message)})${suffix(msg)}`,
    );
  }
  const matches = msgMatches instanceof RegExp
    ? msgMatches.test(error.message)
    : error.message.includes(msgMatches ?? "");
  if (!matches) {
    const wanted = msgMatches instanceof RegExp ? String(msgMatches) : JSON.stringify(msgMatches);
    throw new AssertionError(
      `Expected error message to include ${wanted}, but got ${JSON.stringify(error.message)}${suffix(msg)}`,
    );
  }
}

/** Fails unless `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Fails unless `fn` throws an error of `errorClass` whose message includes `msgIncludes`; returns that error. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error>(
  fn: () => unknown,
  classOrMsg?: ErrorClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  let thrown: unknown;
  try {
    fn();
  } catch (error) {
    thrown = error;
    return checkThrown(thrown, classOrMsg, msgIncludes, msg);
  }
  throw new AssertionError(`Expected function to throw${suffix(typeof classOrMsg === "string" ? classOrMsg : msg)}`);
}

/** Fails unless the promise that `fn` returns rejects; returns the reason. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Fails unless it rejects with an error of `errorClass` whose message includes `msgIncludes`; returns that error. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error>(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorClass<E> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const end = suffix(typeof classOrMsg === "string" ? classOrMsg : msg);
  let promise: PromiseLike<unknown> | undefined;
  try {
    promise = fn();
  } catch { /* Thrown, not rejected: the check below says so. */ }
  if (typeof promise?.then !== "function") throw new AssertionError(`Function throws when expected to reject${end}`);
  try {
    await promise;
  } catch (error) {
    return checkThrown(error, classOrMsg, msgIncludes, msg);
  }
  throw new AssertionError(`Expected function to reject${end}`);
}

function checkThrown<E extends Error>(
  error: unknown,
  classOrMsg: ErrorClass<E> | string | undefined,
  msgIncludes: string | undefined,
  msg: string | undefined,
): unknown {
  if (typeof classOrMsg === "function") assertIsError(error, classOrMsg, msgIncludes, msg);
  return error;
}

function suffix(msg: string | undefined): string {
  return msg ? `: ${msg}` : ".";
}

function show(value: unknown): string {
  return Deno.inspect(value, { depth: 10, iterableLimit: 200, strAbbreviateSize: 2000, sorted: true });
}
