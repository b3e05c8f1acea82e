/**
 * Declares what a request may contain. Each declaration gives both the check, whose errors name the invalid parameter,
 * and the JSON Schema in `/openapi.json`, so the two always agree. `null` counts as a missing field, because some
 * clients send it instead of leaving the field out.
 *
 * All numbers and lengths have bounds. They are checked before any memory is allocated for a value.
 */
import { nearest } from "../errors.ts";
import { shown } from "../files/shown.ts";
import { invalid } from "./errors.ts";

/** JSON Schema, 2020-12. */
export type Schema = Readonly<Record<string, unknown>>;

/** The declaration of a field. */
export interface Field<T> {
  readonly schema: Schema;
  /** Whether the field may be missing or null. */
  readonly optional?: boolean;
  /**
   * Returns the validated value.
   *
   * @param at the field's name, as in `messages[0].content`
   * @throws {ApiError} 400, naming the field
   */
  check(value: unknown, at: string): T;
}

// deno-lint-ignore no-explicit-any -- a field of any type
export type Fields = Readonly<Record<string, Field<any>>>;
/** The values of fields after validation. */
export type Values<F extends Fields> = { readonly [Name in keyof F]: F[Name] extends Field<infer T> ? T : never };

const kindOf = (value: unknown): string => value === null ? "null" : Array.isArray(value) ? "a list" : typeof value;
const wrongType = (at: string, value: unknown, expected: string) =>
  invalid(at, `${at}: expected ${expected}, got ${kindOf(value)}`, "invalid_type");

/** A string of `min` to `max` characters, or one of `values`. */
export function string(
  { min = 0, max, values, pattern, about }: {
    readonly min?: number;
    readonly max: number;
    readonly values?: readonly string[];
    readonly pattern?: RegExp;
    readonly about?: string;
  },
): Field<string> {
  const length = { ...min > 0 && { minLength: min }, maxLength: max }, shape = pattern && { pattern: pattern.source };
  return {
    schema: { type: "string", ...values ? { enum: values } : { ...length, ...shape }, ...described(about) },
    check(value, at) {
      if (typeof value !== "string") throw wrongType(at, value, "a string");
      if (values && !values.includes(value)) {
        throw invalid(at, `${at}: expected ${values.join(", ")}, got ${shown(value)}`);
      }
      if (value.length < min) throw invalid(at, `${at}: expected at least ${min} characters, got ${value.length}`);
      if (value.length > max) throw invalid(at, `${at} has ${value.length} characters; at most ${max} are allowed`);
      if (pattern && !pattern.test(value)) throw invalid(at, `${at}: expected ${about ?? pattern.source}`);
      return value;
    },
  };
}

/** A number with bounds. */
export function number(
  { min, max, whole = false, above = false, about }: {
    readonly min: number;
    readonly max: number;
    readonly whole?: boolean;
    /** Whether `min` itself is invalid. */
    readonly above?: boolean;
    readonly about?: string;
  },
): Field<number> {
  const low = above ? { exclusiveMinimum: min } : { minimum: min };
  const expected = `a ${whole ? "whole " : ""}number ${above ? `above ${min}, up to` : `from ${min} to`} ${max}`;
  return {
    schema: { type: whole ? "integer" : "number", ...low, maximum: max, ...described(about) },
    check(value, at) {
      if (typeof value !== "number") throw wrongType(at, value, expected);
      if (whole && !Number.isInteger(value)) throw wrongType(at, value, expected);
      if (value >= min && value <= max && !(above && value === min)) return value;
      throw invalid(at, `${at}: expected ${expected}, got ${value}`);
    },
  };
}
export const integer = (bounds: { readonly min: number; readonly max: number; readonly about?: string }) =>
  number({ ...bounds, whole: true });

/** True or false. */
export function boolean(about?: string): Field<boolean> {
  return {
    schema: { type: "boolean", ...described(about) },
    check(value, at) {
      if (typeof value === "boolean") return value;
      throw wrongType(at, value, "true or false");
    },
  };
}

/** A list with bounds. */
export function list<T>(
  item: Field<T>,
  { min = 0, max, about }: { readonly min?: number; readonly max: number; readonly about?: string },
): Field<readonly T[]> {
  return {
    schema: {
      ...{ type: "array", items: item.schema, ...min > 0 && { minItems: min }, maxItems: max },
      ...described(about),
    },
    check(value, at) {
      if (!Array.isArray(value)) throw wrongType(at, value, "a list");
      if (value.length < min) throw invalid(at, `${at}: expected at least ${min} entries, got ${value.length}`);
      if (value.length > max) throw invalid(at, `${at} has ${value.length} entries; at most ${max} are allowed`);
      return value.map((value, i) => item.check(value, `${at}[${i}]`));
    },
  };
}

/** An object with arbitrary names, such as `logit_bias`. */
export function map<T>(
  item: Field<T>,
  { names, max, about }: { readonly names: RegExp; readonly max: number; readonly about: string },
): Field<ReadonlyMap<string, T>> {
  return {
    schema: {
      ...{ type: "object", propertyNames: { pattern: names.source }, additionalProperties: item.schema },
      ...{ maxProperties: max, description: about },
    },
    check(value, at) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrongType(at, value, "an object");
      const entries = Object.entries(value);
      if (entries.length > max) throw invalid(at, `${at} has ${entries.length} entries; at most ${max} are allowed`);
      return new Map(entries.map(([name, value]) => {
        if (!names.test(name)) throw invalid(at, `${at}: the name ${shown(name)} is not valid: ${about}`);
        return [name, item.check(value, `${at}[${shown(name)}]`)];
      }));
    },
  };
}

/** An object with the given fields. Unknown fields are errors. */
export function object<F extends Fields>(fields: F, about?: string): Field<Values<F>> {
  const names = Object.keys(fields), required = names.filter((name) => !fields[name].optional);
  return {
    schema: {
      type: "object",
      properties: Object.fromEntries(names.map((name) => [name, fields[name].schema])),
      ...required.length > 0 && { required },
      additionalProperties: false,
      ...described(about),
    },
    check(value, at) {
      const path = (name: string) => at ? `${at}.${name}` : name;
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw at ? wrongType(at, value, "an object") : invalid(null, "The body: expected an object", "invalid_type");
      }
      for (const name of Object.keys(value)) {
        if (Object.hasOwn(fields, name)) continue;
        const param = path(shown(name)), like = nearest(name.slice(0, 80), names);
        throw invalid(param, `Unknown parameter ${param}${like ? `; did you mean ${like}?` : ""}`, "unknown_parameter");
      }
      return Object.fromEntries(names.map((name) => {
        const given = (Object.hasOwn(value, name) ? value[name as keyof typeof value] : undefined) ?? undefined;
        if (given === undefined && !fields[name].optional) {
          throw invalid(path(name), `Missing required parameter: ${path(name)}`, "missing_required_parameter");
        }
        return [name, fields[name].check(given, path(name))];
      })) as Values<F>;
    },
  };
}

/** A field of several types: the first case whose `is` returns true checks it. */
export function either<T>(
  expected: string,
  cases: readonly { readonly is: (value: unknown) => boolean; readonly field: Field<T> }[],
  about?: string,
): Field<T> {
  return {
    schema: { anyOf: cases.map(({ field }) => field.schema), ...described(about) },
    check(value, at) {
      const found = cases.find(({ is }) => is(value));
      if (!found) throw wrongType(at, value, expected);
      return found.field.check(value, at);
    },
  };
}

/** A field whose validated value is converted by `make`. */
export function mapped<T, U>(field: Field<T>, make: (value: T, at: string) => U): Field<U> {
  return { ...field, check: (value, at) => make(field.check(value, at), at) };
}

/** A field that may be missing or null; its value is `fallback` then. */
export function optional<T>(field: Field<T>): Field<T | undefined>;
export function optional<T, F>(field: Field<T>, fallback: F): Field<T | F>;
export function optional<T>(field: Field<T>, fallback?: unknown): Field<unknown> {
  const { type } = field.schema, shown = typeof fallback !== "object" && fallback !== undefined;
  const rest = { ...field.schema };
  if (Array.isArray(rest.enum)) rest.enum = [...rest.enum, null];
  if (Array.isArray(rest.anyOf)) rest.anyOf = [...rest.anyOf, { type: "null" }];
  return {
    schema: { ...rest, ...typeof type === "string" && { type: [type, "null"] }, ...shown && { default: fallback } },
    optional: true,
    check: (value, at) => value === undefined || value === null ? fallback : field.check(value, at),
  };
}

/** A field that is accepted and has no effect. */
export function ignored(about?: string): Field<undefined> {
  return {
    schema: { description: about ?? "Accepted; has no effect.", [STATUS]: "ignored" },
    optional: true,
    check: () => undefined,
  };
}

/**
 * A field that this server does not support.
 *
 * @param instead a sentence that says what a client can do instead
 * @param allowed values that are accepted in addition to null, because they ask for nothing
 */
export function refused(instead: string, allowed: readonly unknown[] = []): Field<undefined> {
  return {
    schema: { enum: [null, ...allowed], description: `Not supported. ${instead}`, [STATUS]: "refused" },
    optional: true,
    check(value, at) {
      if (value === undefined || value === null) return;
      const json = JSON.stringify(value);
      if (allowed.some((one) => JSON.stringify(one) === json)) return;
      throw invalid(at, `${at} is not supported here. ${instead}`, "unsupported_parameter");
    },
  };
}

/**
 * The name in a schema that marks a field as `ignored` or `refused`. A field without it has the meaning of OpenAI's
 * API.
 */
export const STATUS = "x-nanogpt";

const described = (about: string | undefined): Schema => about === undefined ? {} : { description: about };

/** Names and values that a client stores with an object, as OpenAI limits them. */
export const metadata: Field<Readonly<Record<string, string>>> = mapped(
  map(string({ max: 512 }), { names: /^[\s\S]{1,64}$/, max: 16, about: "names have 1 to 64 characters" }),
  (entries) => Object.fromEntries(entries),
);
